"""The stand-in plugin beside what was measured of the official one: its golden state, and its ways to fail.

With DHCTL_TEST_OPENSTACK_PLUGIN these run with the official plugin, but those that order faults.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openstack.connection import Connection
from pulumi import automation as auto

from cloud.standin_stack import (
    GOLDEN,
    StandInStack,
    changing_program,
    failing,
    golden_program,
    keypair_program,
    server_program,
    shape,
)
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from testbeds.openstack.conditions import quota
from testbeds.openstack.fixtures import OpenStackCloud
from testbeds.openstack.plugin.install import OFFICIAL_ENV

SERVER_S = 60.0
pytestmark = [
    # Pulumi's SDK forgets to close the event loop of an inline program that failed
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
needs_faults = pytest.mark.skipif(OFFICIAL_ENV in os.environ, reason="the official plugin takes no orders for faults")


@pytest.fixture(scope="session")
def engine() -> Path:
    return ensure_engine(default_root(), ignore).parent


@pytest.fixture
def user(openstack_cloud: OpenStackCloud) -> Connection:
    return openstack_cloud.user()


@pytest.fixture
def golden(user: Connection) -> Callable[[], None]:
    external = user.network.find_network("public", ignore_missing=False).id
    return lambda: golden_program(external)


@pytest.fixture
def standin(
    openstack_cloud: OpenStackCloud, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandInStack]:
    """A stack that is destroyed after the test, whatever it did."""
    for name, value in openstack_cloud.env.items():
        monkeypatch.setenv(name, value)
    stack = StandInStack(tmp_path, engine, dict(openstack_cloud.env))
    yield stack
    stack.faults.unlink(missing_ok=True)
    stack.stack().cancel()
    if stack.resources():
        stack.stack().refresh(clear_pending_creates=True)
        stack.stack().destroy()
    assert stack.resources() == []
    gc.collect()  # here, where the warnings about those event loops are expected


def test_the_state_is_that_of_the_official_plugin(
    standin: StandInStack, golden: Callable[[], None], user: Connection
) -> None:
    made = standin.stack(golden).up()
    assert made.summary.resource_changes == {"create": 14}
    found = {r["type"]: shape(r) for r in standin.resources()}
    wanted = {r["type"]: shape(r) for r in GOLDEN}
    provider = "pulumi:providers:openstack"
    assert found.pop(provider)["inputs"] == wanted.pop(provider)["inputs"]
    assert found.keys() == wanted.keys()
    for kind, resource in wanted.items():
        assert found[kind] == resource
    assert standin.stack(golden).up().summary.resource_changes == {"same": 14}
    standin.stack().refresh()
    assert standin.stack(golden).preview().change_summary == {"same": 14}
    destroyed = standin.stack().destroy()
    assert destroyed.summary.resource_changes == {"delete": 14}
    assert standin.resources() == []


@pytest.mark.thorough
def test_a_floating_ip_that_is_gone_fails_the_destroy_until_a_refresh(
    standin: StandInStack, golden: Callable[[], None], user: Connection
) -> None:
    standin.stack(golden).up()
    fip = next(r for r in standin.resources() if r["type"].endswith(":FloatingIp"))
    user.network.delete_ip(fip["id"])
    with failing() as said:
        standin.stack().destroy()
    assert f"Error disassociating openstack_networking_floatingip_associate_v2 floating_ip {fip['id']}" in said[0]
    assert "Expected HTTP response code [200]" in said[0]
    assert "but got 404 instead" in said[0]
    assert len(standin.kinds()) == 13
    assert standin.stack().refresh().summary.resource_changes == {"delete": 2, "same": 12}
    standin.stack().destroy()
    assert standin.resources() == []


@pytest.mark.thorough
def test_a_server_that_is_gone_is_made_anew_or_forgotten(standin: StandInStack, user: Connection) -> None:
    program = server_program("m1.tiny")
    standin.stack(program).up()
    server = next(r for r in standin.resources() if r["type"].endswith(":Instance"))
    user.compute.delete_server(server["id"])
    user.compute.wait_for_delete(user.compute.get_server(server["id"]), interval=0.5, wait=SERVER_S)
    assert standin.stack(program).preview(refresh=True).change_summary[auto.OpType.CREATE] == 1
    standin.stack().destroy()
    assert standin.resources() == []


@pytest.mark.thorough
def test_changes_reach_the_cloud(standin: StandInStack, user: Connection) -> None:
    standin.stack(changing_program("one")).up()
    changed = standin.stack(changing_program("two")).up().summary.resource_changes
    assert changed == {"update": 5, "same": 3}
    found = {r["urn"].rpartition("::")[2]: r for r in standin.resources()}
    network, port = user.network.get_network(found["n"]["id"]), user.network.get_port(found["p"]["id"])
    assert (sorted(network.tags), network.description) == (["kept", "two"], "two")
    assert (port.security_group_ids, port.tags) == ([found["two"]["id"]], ["two"])
    server = user.compute.get_server(found["head"]["id"])
    assert server.metadata == {"dh": "two"}
    assert found["head"]["outputs"]["allTags"] == ["two"]
    assert user.compute.get_server_group(found["grp"]["id"]).member_ids == [server.id]
    assert found["s"]["outputs"]["dnsNameservers"] == ["10.77.0.9"]
    assert standin.stack(changing_program("two")).up().summary.resource_changes == {"same": 8}


@pytest.mark.thorough
@pytest.mark.parametrize("told", ["provider", "environment"])
def test_the_login_may_be_told_in_both_ways(
    standin: StandInStack, openstack_cloud: OpenStackCloud, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = standin.without("OS_CLOUD")
    monkeypatch.delenv("OS_CLOUD")
    config = openstack_cloud.user().config
    login = {key: value for key, value in config.auth.items() if value}
    if told == "environment":
        for key, value in (login | {"region_name": config.get_region_name()}).items():
            monkeypatch.setenv(f"OS_{key.upper()}", value)
    standin.stack(keypair_program(name if told == "provider" else None)).up()
    assert standin.kinds() == {"Keypair"}


@pytest.mark.thorough
def test_over_quota_nothing_of_the_server_is_in_the_state(
    standin: StandInStack, openstack_cloud: OpenStackCloud
) -> None:
    used = openstack_cloud.user().compute.get_limits().absolute.total_cores_used
    with quota(openstack_cloud.admin(), "compute", cores=used), failing() as said:
        standin.stack(server_program("m1.tiny")).up()
    assert "Error creating OpenStack server: Expected HTTP response code [200 202] when accessing [POST http" in said[0]
    assert "but got 403 instead" in said[0]
    assert "Quota exceeded for cores" in said[0]
    assert standin.kinds() == {"Network", "Subnet", "Port"}
    standin.stack().destroy()


@pytest.mark.thorough
def test_a_server_in_error_is_in_the_state_without_its_reason(standin: StandInStack, user: Connection) -> None:
    with failing() as said:
        standin.stack(server_program("m1.huge")).up()
    server = next(r for r in standin.resources() if r["type"].endswith(":Instance"))
    assert (
        f"Error waiting for instance ({server['id']}) to become ready: unexpected state 'ERROR', "
        "wanted target 'ACTIVE'. last error: %!s(<nil>)"
    ) in said[0]
    assert len(server["initErrors"]) == 1
    assert user.compute.get_server(server["id"]).status == "ERROR"
    standin.stack().destroy()
    assert user.compute.find_server(server["id"]) is None


@pytest.mark.thorough
def test_a_foreign_port_holds_the_subnet_without_a_word_about_it(standin: StandInStack, user: Connection) -> None:
    standin.stack(server_program("m1.tiny")).up()
    network = next(r["id"] for r in standin.resources() if r["type"].endswith(":Network"))
    subnet = next(r["id"] for r in standin.resources() if r["type"].endswith(":Subnet"))
    foreign = user.network.create_port(network_id=network, name="standin-foreign")
    try:
        started = time.monotonic()
        with failing() as said:
            standin.stack().destroy()
        assert time.monotonic() - started > 15
    finally:
        user.network.delete_port(foreign)
    words = f"Error waiting for openstack_networking_subnet_v2 {subnet} to become deleted: context deadline exceeded"
    assert words in said[0]
    assert foreign.id not in said[0]
    assert standin.kinds() == {"Network", "Subnet"}
    standin.stack().destroy()
    assert standin.resources() == []


@needs_faults
def test_a_server_whose_create_was_answered_when_the_client_died_is_known_to_nobody(
    standin: StandInStack, user: Connection
) -> None:
    fault = {"type": "openstack:compute/instance:Instance", "op": "create", "when": "after", "do": "die"}
    standin.faults.write_text(json.dumps([fault]))
    with failing():
        standin.stack(server_program("m1.tiny")).up()
    assert standin.kinds() == {"Network", "Subnet", "Port"}
    _assert_lost(standin, user)


@pytest.mark.thorough
def test_a_server_in_build_when_the_cli_was_killed_outlives_the_destroy(
    standin: StandInStack, user: Connection
) -> None:
    killed = threading.Thread(target=_kill_when_building, args=(user, standin))
    killed.start()
    with failing():
        standin.stack(server_program("m1.tiny")).up()
    killed.join(SERVER_S)
    _assert_lost(standin, user)


def _kill_when_building(user: Connection, standin: StandInStack) -> None:
    end = time.monotonic() + SERVER_S
    while time.monotonic() < end and not any(user.compute.servers(name="head-")):
        time.sleep(0.1)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd, command = (process / "cwd").readlink(), (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if cwd == standin.work and b"pulumi\0" in command:
            os.kill(int(process.name), signal.SIGKILL)


def _assert_lost(standin: StandInStack, user: Connection) -> None:
    """The measured case: a successful destroy, and the server is still there; only the pending operations know."""
    pending = [op["resource"] for op in standin.deployment()["pending_operations"]]
    assert [resource["type"] for resource in pending] == ["openstack:compute/instance:Instance"]
    name = pending[0]["inputs"]["name"]
    with failing() as said:
        standin.stack().destroy()
    assert "the stack is currently locked by 1 lock(s)" in said[0]
    server = next(iter(user.compute.servers(name=name)))
    assert server.metadata == {"dh": "x"}
    user.compute.wait_for_server(server, wait=SERVER_S)
    standin.stack().cancel()
    try:
        standin.stack().destroy()
        assert standin.resources() == []
        assert len(standin.deployment()["pending_operations"]) == 1
        assert user.compute.get_server(server.id).status == "ACTIVE"
    finally:
        user.compute.delete_server(server)
        user.compute.wait_for_delete(server, interval=0.5, wait=SERVER_S)


@needs_faults
def test_an_ordered_error_is_told_and_leaves_nothing(standin: StandInStack) -> None:
    fault = {
        "type": "openstack:networking/subnet:Subnet",
        "op": "create",
        "when": "before",
        "do": "error",
        "text": "no",
    }
    standin.faults.write_text(json.dumps([fault]))
    with pytest.raises(auto.CommandError, match=r"1 error occurred:\s+\* no\n"):
        standin.stack(server_program("m1.tiny")).up()
    assert standin.kinds() == {"Network"}
