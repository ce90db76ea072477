"""The testbed itself: that it is the cloud, and misbehaves in the ways, that the other tests here rely on."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from keystoneauth1.exceptions import ConnectFailure
from openstack import exceptions
from openstack.connection import Connection

from testbeds.faults import Cut, Fault, Hang, Status
from testbeds.object_store import ObjectStore
from testbeds.openstack.conditions import floating_ips_stay, quota, site_policy
from testbeds.openstack.fault_proxy import FaultProxy
from testbeds.openstack.fixtures import OpenStackCloud
from testbeds.openstack.layout import ENDPOINTS, TOKEN_CACHE_S, Layout
from testbeds.openstack.leftovers import leftovers

PREFIX = "testbed-check"


def until(done: Callable[[], Any], limit_s: float) -> Any:
    """The first true answer of `done`; fails the test after `limit_s`."""
    end = time.monotonic() + limit_s
    while not (answer := done()):
        if time.monotonic() > end:
            pytest.fail(f"not within {limit_s} s")
        time.sleep(0.5)
    return answer


@pytest.fixture
def user(openstack_cloud: OpenStackCloud) -> Iterator[Connection]:
    """A connection as demo; what the test made under PREFIX is deleted after it."""
    connection = openstack_cloud.user()
    yield connection
    _delete_all(connection)
    assert [line for line in leftovers(connection) if PREFIX in line] == []


@pytest.fixture
def network(user: Connection) -> Any:
    """A network with a subnet."""
    network = user.network.create_network(name=PREFIX)
    user.network.create_subnet(name=PREFIX, network_id=network.id, ip_version=4, cidr="10.66.0.0/24")
    return network


def _delete_all(user: Connection) -> None:
    for server in user.compute.servers(name=PREFIX):
        user.compute.delete_server(server)
        user.compute.wait_for_delete(server, interval=0.5, wait=120)
    for ip in user.network.ips(description=PREFIX):
        user.network.delete_ip(ip)
    for router in user.network.routers(name=PREFIX):
        for port in user.network.ports(device_id=router.id, device_owner="network:router_interface"):
            user.network.remove_interface_from_router(router, port=port.id)
        user.network.delete_router(router)
    for port in user.network.ports(name=PREFIX):
        user.network.delete_port(port)
    for network in user.network.networks(name=PREFIX):
        user.network.delete_network(network)
    for group in user.network.security_groups(name=PREFIX):
        user.network.delete_security_group(group)
    user.compute.delete_keypair(PREFIX, ignore_missing=True)


def _boot(user: Connection, network: Any, flavor: str, user_data: str = "") -> Any:
    return user.compute.create_server(
        name=PREFIX,
        image_id=user.image.find_image("host", ignore_missing=False).id,
        flavor_id=user.compute.find_flavor(flavor, ignore_missing=False).id,
        networks=[{"uuid": network.id}],
        user_data=base64.b64encode(user_data.encode()).decode(),
    )


def _status(user: Connection, server: Any, wanted: str, limit_s: float = 120) -> Any:
    def found() -> Any:
        now = user.compute.get_server(server)
        return now if now.status == wanted else None

    return until(found, limit_s)


def test_an_instance_runs_its_user_data_and_reaches_the_s3_server(
    user: Connection, network: Any, s3_server: ObjectStore
) -> None:
    public = user.network.find_network("public", ignore_missing=False)
    router = user.network.create_router(name=PREFIX, external_gateway_info={"network_id": public.id})
    [subnet_id] = user.network.get_network(network).subnet_ids
    user.network.add_interface_to_router(router, subnet=subnet_id)
    curl = "curl --silent --max-time 20 --output /dev/null --write-out 'S3 answers %{http_code}'"
    server = _boot(user, network, "m1.tiny", f"#!/bin/sh\n{curl} {s3_server.endpoint_url}/\n")
    assert any(PREFIX in line for line in leftovers(user))
    _status(user, server, "ACTIVE")

    def console() -> str:
        output = user.compute.get_server_console_output(server)["output"]
        return output if "[ostb] cloud-init done" in output else ""

    assert "S3 answers 403" in until(console, 120)  # nobody is anybody there
    bucket = s3_server.make_bucket("testbed-check").removeprefix("s3://")
    s3_server.client().put_object(Bucket=bucket, Key="a/b", Body=b"12345")
    assert s3_server.objects(bucket) == {"a/b": 5}


@pytest.mark.parametrize(("flavor", "reason"), [("m1.huge", "No valid host"), ("m1.fail", "told to fail")])
def test_a_server_in_error_says_why(user: Connection, network: Any, flavor: str, reason: str) -> None:
    server = _status(user, _boot(user, network, flavor), "ERROR")
    assert reason in server.fault["message"]


def test_a_server_that_hangs_in_build_can_be_deleted(user: Connection, network: Any) -> None:
    server = _boot(user, network, "m1.hang")
    until(lambda: user.compute.get_server(server).task_state == "spawning", 60)
    time.sleep(3)
    assert user.compute.get_server(server).status == "BUILD"
    user.compute.delete_server(server)
    user.compute.wait_for_delete(server, interval=0.5, wait=60)


def test_a_wired_port_that_is_told_anew_keeps_no_other_from_being_wired(user: Connection, network: Any) -> None:
    """Its agent deletes the port's rules of ebtables and makes them anew."""

    def wired(server: Any) -> Any:
        return [port for port in user.network.ports(device_id=server.id) if port.status == "ACTIVE"]

    first = _boot(user, network, "m1.tiny")
    [port] = until(lambda: wired(first), 120)
    user.network.update_port(port, security_groups=[])
    second = _boot(user, network, "m1.tiny")
    until(lambda: wired(second), 120)


def test_site_policy_can_forbid_to_delete_floating_ips(openstack_cloud: OpenStackCloud, user: Connection) -> None:
    public = user.network.find_network("public", ignore_missing=False)
    with floating_ips_stay(openstack_cloud.layout):
        ip = user.network.create_ip(floating_network_id=public.id, description=PREFIX)
        with pytest.raises(exceptions.ForbiddenException):
            user.network.delete_ip(ip)
    user.network.delete_ip(ip, ignore_missing=False)


def test_site_policy_of_compute_is_read_anew_too(openstack_cloud: OpenStackCloud, user: Connection) -> None:
    rules = {"os_compute_api:os-keypairs:create": "!"}
    with site_policy(openstack_cloud.layout, "compute", rules), pytest.raises(exceptions.ForbiddenException):
        user.compute.create_keypair(name=PREFIX)
    user.compute.create_keypair(name=PREFIX)


def test_quota_can_be_set_for_a_while(openstack_cloud: OpenStackCloud, user: Connection) -> None:
    def instances() -> int:
        limit: int = user.compute.get("/limits").json()["limits"]["absolute"]["maxTotalInstances"]
        return limit

    before = instances()
    with quota(openstack_cloud.admin(), "compute", instances=1), quota(openstack_cloud.admin(), "network", network=0):
        assert instances() == 1
        with pytest.raises(exceptions.ConflictException, match="network"):
            user.network.create_network(name=PREFIX)
    assert instances() == before


def test_access_rules_of_application_credentials_are_enforced(
    openstack_cloud: OpenStackCloud, user: Connection
) -> None:
    path = f"/v3/users/{user.current_user_id}/application_credentials"
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]
    body = {"application_credential": {"name": PREFIX, "access_rules": rules}}
    made = user.session.post(ENDPOINTS["identity"].removesuffix("/v3") + path, json=body).json()[
        "application_credential"
    ]
    try:
        token = _token(
            {"methods": ["application_credential"], "application_credential": {k: made[k] for k in ("id", "secret")}}
        )
        assert _get("compute", "/servers", token) == 200
        assert _get("compute", "/flavors", token) == 401
        assert _get("network", "/v2.0/networks", token) == 401
    finally:
        identity: Any = user.identity  # typed as version 2 or 3
        identity.delete_application_credential(user.current_user_id, made["id"])


def test_a_revoked_token_is_refused_within_seconds(openstack_cloud: OpenStackCloud, user: Connection) -> None:
    token = openstack_cloud.user().auth_token
    assert _get("compute", "/servers", token) == 200
    requests.delete(
        f"{ENDPOINTS['identity']}/auth/tokens", headers={"X-Auth-Token": token, "X-Subject-Token": token}, timeout=30
    )
    until(lambda: _get("compute", "/servers", token) == 401, TOKEN_CACHE_S + 2)


def test_clients_that_keep_their_connections_leave_room_for_others(openstack_cloud: OpenStackCloud) -> None:
    """Each session of openstacksdk keeps one, and the tests of one session make hundreds."""
    with ExitStack() as idle:
        for service in ("network", "compute"):
            for _ in range(150):
                client = idle.enter_context(requests.Session())
                assert client.get(ENDPOINTS[service], timeout=20).status_code < 500
    assert list(openstack_cloud.user().network.networks(name="public"))


def _get(service: str, path: str, token: str | None) -> int:
    return requests.get(ENDPOINTS[service] + path, headers={"X-Auth-Token": token or ""}, timeout=60).status_code


def _token(identity: dict[str, Any]) -> str:
    answer = requests.post(f"{ENDPOINTS['identity']}/auth/tokens", json={"auth": {"identity": identity}}, timeout=30)
    return answer.headers["X-Subject-Token"]


class TestFaultProxy:
    """Seen by a client of openstacksdk that has the proxy's clouds.yaml."""

    @pytest.fixture
    def client(self, fault_proxy: FaultProxy) -> Connection:
        from openstack.config import OpenStackConfig

        config = OpenStackConfig(config_files=[str(fault_proxy.clouds_yaml)], load_envvars=False)
        return Connection(config=config.get_one(cloud="testbed", status_code_retries=0, connect_retries=0))

    def test_passes_everything_on(self, fault_proxy: FaultProxy, client: Connection) -> None:
        assert {flavor.name for flavor in client.compute.flavors()} >= {"m1.tiny", "m1.small"}
        assert [network.name for network in client.network.networks(name="public")] == ["public"]
        asked = {request.service for request, _ in fault_proxy.seen}
        assert asked == {"identity", "compute", "network"}

    def test_answers_a_status_for_as_long_as_told(self, fault_proxy: FaultProxy, client: Connection) -> None:
        fault = fault_proxy.expect(Fault("network", "GET", r"/networks", Status(503), times=2))
        for _ in range(2):
            with pytest.raises(exceptions.HttpException, match="503"):
                list(client.network.networks())
        assert list(client.network.networks(name="public"))
        assert fault.hits == 2

    def test_lets_a_request_hang(self, fault_proxy: FaultProxy, client: Connection) -> None:
        list(client.network.networks())
        fault_proxy.expect(Fault("network", "GET", r"/networks", Hang(3)))
        started = time.monotonic()
        assert list(client.network.networks(name="public"))
        assert time.monotonic() - started >= 3

    def test_cuts_the_answer_off_what_was_made(
        self, fault_proxy: FaultProxy, client: Connection, user: Connection
    ) -> None:
        answers: list[int] = []
        fault_proxy.expect(Fault("network", "POST", r"/networks$", Cut(lambda answer: answers.append(answer.status))))
        with pytest.raises(ConnectFailure):
            client.network.create_network(name=PREFIX)
        assert answers == [201]
        assert [network.name for network in user.network.networks(name=PREFIX)] == [PREFIX]

    def test_revokes_the_token_in_earnest(self, fault_proxy: FaultProxy, client: Connection) -> None:
        first = client.auth_token
        list(client.compute.flavors())
        fault_proxy.expect(Fault("compute", "GET", r"/flavors", fault_proxy.revoke_token()))
        assert list(client.compute.flavors())  # keystoneauth logs in anew after a 401
        statuses = [status for request, status in fault_proxy.seen if "/flavors" in request.path]
        assert statuses == [200, 401, 200]
        assert client.auth_token != first


def test_state_folder_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DHCTL_TESTBED_STATE", str(tmp_path))
    assert Layout.of_environment().state == tmp_path
