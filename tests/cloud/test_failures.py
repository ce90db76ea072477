"""What goes wrong on the way up and down, on a real OpenStack: everything is gone, and the reason is told."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any

import psutil
import pytest
from openstack.connection import Connection

from cloud.runs import CloudRuns, assert_nothing_marked
from cloud.things import Foreign, create_server
from dhctl.infra.ledger import last
from dhctl.infra.openstack.mark import WORKER, Mark
from dhctl.infra.record import RunRecord
from e2e.driver import has
from testbeds.faults import Fault, Status
from testbeds.openstack.conditions import floating_ips_stay, quota
from testbeds.openstack.fault_proxy import FaultProxy
from testbeds.openstack.fixtures import OpenStackCloud

INSTANCE = "openstack:compute/instance:Instance"
TINY = {"workers": {"min": 0, "max": 1, "memory": "512MiB"}}


def order(dhctl: CloudRuns, *faults: dict[str, Any]) -> None:
    """Faults of the stand-in plugin."""
    path = dhctl.folder / "faults.json"
    path.write_text(json.dumps(faults))
    dhctl.env["DHCTL_STANDIN_FAULTS"] = str(path)


def kill(client: subprocess.Popen[str], record: RunRecord) -> None:
    """The client and the engine that it started, at once, as when their machine loses its power."""
    engine = last(record.ledger.entries(), "engine.process")
    assert engine is not None
    process = psutil.Process(engine.detail["process"]["pid"])
    client.send_signal(signal.SIGKILL)
    for killed in [process, *process.children(recursive=True)]:
        killed.send_signal(signal.SIGKILL)
    client.wait(10)


def receipt_of(record: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.receipt_path.read_text())
    return found


@pytest.mark.thorough
def test_a_head_in_error_says_why(dhctl: CloudRuns, foreign: Foreign) -> None:
    up = dhctl("up", dhctl.spec("pair", openstack={"flavor": "m1.small", "head_flavor": "m1.fail"}))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "the testbed was told to fail it" in up.stdout + up.stderr
    assert receipt_of(dhctl.record())["clean"] is True


def test_a_quota_that_is_too_small_refuses_before_anything_is_made(
    dhctl: CloudRuns, openstack_cloud: OpenStackCloud
) -> None:
    with quota(openstack_cloud.admin(), "compute", instances=1):
        up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 1
    assert "instances" in up.stderr
    assert dhctl.records() == []


def test_the_engine_dies_when_the_head_was_just_made(dhctl: CloudRuns, cloud: Connection, foreign: Foreign) -> None:
    """Create answered, then the engine died: the state does not know the server, the project does."""
    order(dhctl, {"type": INSTANCE, "op": "create", "when": "after", "do": "die"})
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 1, up.stdout + up.stderr
    record = dhctl.record()
    assert receipt_of(record)["clean"] is True
    deleted = [e.detail["name"] for e in record.ledger.entries() if e.act == "resource.delete" and e.phase == "done"]
    assert f"{record.run_id}-head" in deleted, "the sweep found what Pulumi did not know"
    assert_nothing_marked(cloud, [record.run_id])


def test_client_and_engine_are_killed_while_the_head_is_made(dhctl: CloudRuns, cloud: Connection) -> None:
    order(dhctl, {"type": INSTANCE, "op": "create", "when": "after", "do": "hang"})
    up = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(lambda r: any(s.name == f"{r.run_id}-head" for s in cloud.compute.servers()))
    kill(up, record)
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_marked(cloud, [record.run_id])


@pytest.fixture
def standing(dhctl: CloudRuns, cloud: Connection) -> RunRecord:
    """A run whose head hangs in BUILD: all resources are there, no Ray. Client and engine are killed."""
    spec = dhctl.spec("pair", openstack={"head_flavor": "m1.hang"})
    up = dhctl.start("up", spec)
    record = dhctl.until(lambda r: any(s.name == f"{r.run_id}-head" for s in cloud.compute.servers()))
    dhctl.until(lambda r: any(f"dhctl-run={r.run_id}" in (a.tags or []) for a in cloud.network.ips()))
    kill(up, record)
    return record


@pytest.mark.thorough
def test_a_floating_ip_deleted_by_hand(
    dhctl: CloudRuns, cloud: Connection, standing: RunRecord, foreign: Foreign
) -> None:
    (address,) = [a for a in cloud.network.ips() if f"dhctl-run={standing.run_id}" in (a.tags or [])]
    cloud.network.delete_ip(address)
    down = dhctl("down", standing.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_marked(cloud, [standing.run_id])


@pytest.mark.thorough
def test_a_foreign_port_on_the_runs_network_is_named_at_exit_5(
    dhctl: CloudRuns, cloud: Connection, standing: RunRecord, foreign: Foreign
) -> None:
    network = cloud.network.find_network(f"{standing.run_id}-net", ignore_missing=False)
    holder = foreign.hold(network)
    down = dhctl("down", standing.run_id)
    assert down.returncode == 5, down.stdout + down.stderr
    assert f"held by port foreign-holder ({holder.id})" in down.stdout
    assert f"openstack network delete {network.id}" in down.stdout
    left = {c["place"] for c in receipt_of(standing)["checks"] if c["state"] != "none"}
    assert {"subnets", "networks"} <= left
    assert left.isdisjoint({"servers", "ports", "routers", "floating IPs", "security groups"})
    cloud.network.delete_port(holder)
    down = dhctl("down", standing.run_id)
    assert down.returncode == 0, down.stdout + down.stderr


@pytest.mark.thorough
def test_a_floating_ip_that_must_stay_is_named_at_exit_5(
    dhctl: CloudRuns, standing: RunRecord, openstack_cloud: OpenStackCloud, foreign: Foreign
) -> None:
    with floating_ips_stay(openstack_cloud.layout):
        down = dhctl("down", standing.run_id)
        assert down.returncode == 5, down.stdout + down.stderr
        assert "openstack floating ip delete" in down.stdout
        assert "403" in down.stdout
    down = dhctl("down", standing.run_id)
    assert down.returncode == 0, down.stdout + down.stderr


def test_apis_in_trouble_and_a_token_that_ends_while_down_runs(
    dhctl: CloudRuns, standing: RunRecord, fault_proxy: FaultProxy, cloud: Connection
) -> None:
    dhctl.env["OS_CLIENT_CONFIG_FILE"] = str(fault_proxy.clouds_yaml)
    faults = [
        fault_proxy.expect(Fault("network", "DELETE", "/networks/", Status(503), times=2)),
        fault_proxy.expect(Fault("compute", "GET", "/servers", Status(500), times=3)),
        fault_proxy.expect(Fault("network", "GET", "/security-groups", fault_proxy.revoke_token())),
    ]
    down = dhctl("down", standing.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert all(fault.hits for fault in faults)
    assert_nothing_marked(cloud, [standing.run_id])


@pytest.mark.thorough
def test_a_worker_that_boots_while_down_runs(
    dhctl: CloudRuns, cloud: Connection, standing: RunRecord, foreign: Foreign
) -> None:
    """As an autoscaler makes one whose request was on its way when its credential went."""
    network = cloud.network.find_network(f"{standing.run_id}-net", ignore_missing=False)
    mark = Mark(standing.run_id, int(standing.expires_at.timestamp()))
    made = threading.Event()

    def late() -> None:
        dhctl.until(has("resource.delete", "intent"))
        create_server(cloud, mark.name("w-late0000"), network, "m1.hang", metadata=mark.metadata(WORKER))
        made.set()

    maker = threading.Thread(target=late)
    maker.start()
    down = dhctl("down", standing.run_id)
    maker.join(60)
    assert made.is_set()
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_marked(cloud, [standing.run_id])


@pytest.mark.thorough
def test_a_head_without_ray_and_without_an_index_quotes_its_console(dhctl: CloudRuns) -> None:
    nowhere = {"python": None, "package_index": "http://172.24.4.1:9/simple"}
    up = dhctl("up", dhctl.spec("pair", openstack=nowhere))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "the head did not start: uv could not be fetched: 172.24.4.1 does not answer" in up.stderr
    record = dhctl.record()
    assert receipt_of(record)["clean"] is True
    assert "@dhctl-node" in (record.logs_dir / "head-console.log").read_text()


@pytest.mark.thorough
def test_a_port_that_is_open_to_the_outside_ends_the_run(dhctl: CloudRuns, cloud: Connection) -> None:
    up = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(lambda r: cloud.network.find_security_group(f"{r.run_id}-head-sg") is not None)
    group = cloud.network.find_security_group(f"{record.run_id}-head-sg")
    cloud.network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=6379, port_range_max=6379
    )
    told, _ = up.communicate(timeout=300)
    assert up.returncode == 1, told
    assert "port 6379 of" in told
    assert "can be entered from outside" in told
    assert receipt_of(record)["clean"] is True


@pytest.mark.thorough
def test_an_existing_network_is_used_and_stays(dhctl: CloudRuns, cloud: Connection, foreign: Foreign) -> None:
    router = foreign.router()
    spec = dhctl.spec("pair", openstack={"head_flavor": "m1.hang", "network": "foreign-net"})
    up = dhctl.start("up", spec)
    record = dhctl.until(lambda r: any(s.name == f"{r.run_id}-head" for s in cloud.compute.servers()))
    dhctl.until(lambda r: any(f"dhctl-run={r.run_id}" in (a.tags or []) for a in cloud.network.ips()))
    kill(up, record)
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert cloud.network.find_network("foreign-net")
    assert cloud.network.find_router(router.id)
    made = {e.detail["kind"] for e in record.ledger.entries() if e.act == "resource.create"}
    assert made.isdisjoint({"Network", "Subnet", "Router", "RouterInterface"})
