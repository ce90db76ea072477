"""The sweep and the receipt's rows against a real OpenStack, case by case; foreign things survive each of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from openstack.connection import Connection

from cloud.things import Foreign, MarkedThings
from dhctl.infra.events import ignore
from dhctl.infra.ledger import Ledger
from dhctl.infra.openstack import inventory
from dhctl.infra.openstack.cloud import connect
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.openstack.sweep import Sweep
from dhctl.infra.receipt import Leftover
from testbeds.faults import Fault, Status
from testbeds.openstack.conditions import floating_ips_stay
from testbeds.openstack.fault_proxy import FaultProxy
from testbeds.openstack.fixtures import OpenStackCloud


class Sweeper:
    """What `down` does at its end: sweep, then look again."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.run_id, self.ledger = run_id, Ledger(folder / "ledger.jsonl")
        self.ledger.create()

    def __call__(self) -> list[Leftover]:
        """What is left. Every place must have been looked at."""
        project = Project(connect(OpenStackSection()))
        Sweep(project, self.run_id, self.ledger, ignore).run()
        return self.look(project)

    def look(self, project: Project) -> list[Leftover]:
        checks = inventory.look(project, self.run_id, inventory.refusals(self.ledger.entries()))
        assert [check.unknown for check in checks if check.unknown] == []
        return [found for check in checks for found in check.found]


@pytest.fixture
def sweep(tmp_path: Path, marked: MarkedThings, cloud: Connection) -> Sweeper:
    return Sweeper(tmp_path, marked.run_id)


def named(left: list[Leftover]) -> dict[str, str]:
    return {found.kind: found.reason for found in left}


def test_everything_with_the_mark_goes_and_nothing_else(
    marked: MarkedThings, foreign: Foreign, sweep: Sweeper, cloud: Connection
) -> None:
    network, subnet = marked.network()
    marked.router(subnet)
    group = marked.security_group()
    marked.floating_ip(marked.port(network, group))
    marked.keypair_and_group()
    found = named(sweep.look(Project(cloud)))
    assert set(found) == {
        *("floating IP", "port", "router", "subnet", "network", "security group", "keypair", "server group")
    }
    assert sweep() == []
    intents = [e.detail["kind"] for e in sweep.ledger.entries() if e.phase == "intent"]
    assert intents.index("floating IP") < intents.index("router") < intents.index("network")


def test_a_server_in_error_and_one_stuck_in_build(marked: MarkedThings, foreign: Foreign, sweep: Sweeper) -> None:
    network, _ = marked.network()
    marked.server(network, "m1.fail", "ERROR")
    assert sweep() == []
    network, _ = marked.network()
    marked.server(network, "m1.hang", "BUILD")
    assert sweep() == []


def test_a_foreign_port_on_the_network_is_named_and_stays(
    marked: MarkedThings, foreign: Foreign, sweep: Sweeper, cloud: Connection
) -> None:
    network, subnet = marked.network()
    marked.router(subnet)
    holder = foreign.hold(network)
    left = named(sweep())
    assert set(left) == {"subnet", "network"}
    assert all(f"held by port foreign-holder ({holder.id})" in reason for reason in left.values())
    assert cloud.network.get_port(holder.id)
    cloud.network.delete_port(holder)
    assert sweep() == []


def test_a_router_interface_held_by_a_foreign_floating_ip(
    marked: MarkedThings, foreign: Foreign, sweep: Sweeper, cloud: Connection
) -> None:
    network, subnet = marked.network()
    marked.router(subnet)
    holder = foreign.hold(network)
    cloud.network.update_ip(foreign.address, port_id=holder.id)
    left = named(sweep())
    assert set(left) == {"router", "subnet", "network"}
    assert "held by" in left["router"]
    assert foreign.address.floating_ip_address in left["router"]
    cloud.network.update_ip(foreign.address, port_id=None)
    cloud.network.delete_port(holder)
    assert sweep() == []


def test_a_security_group_in_use(marked: MarkedThings, foreign: Foreign, sweep: Sweeper, cloud: Connection) -> None:
    group = marked.security_group()
    holder = foreign.hold(foreign.network, group)
    left = named(sweep())
    assert set(left) == {"security group"}
    assert f"held by port foreign-holder ({holder.id})" in left["security group"]
    cloud.network.delete_port(holder)
    assert sweep() == []


def test_a_floating_ip_that_the_site_does_not_let_go(
    marked: MarkedThings, foreign: Foreign, sweep: Sweeper, openstack_cloud: OpenStackCloud
) -> None:
    address = marked.floating_ip()
    with floating_ips_stay(openstack_cloud.layout):
        (left,) = sweep()
        assert left.kind == "floating IP"
        assert left.remove_with == f"openstack floating ip delete {address.id}"
        assert "403" in left.reason
    assert sweep() == []


@pytest.mark.parametrize("status", [500, 503])
def test_an_api_in_trouble_for_a_while(
    marked: MarkedThings, sweep: Sweeper, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    marked.network()
    marked.security_group()
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(fault_proxy.clouds_yaml))
    faults = [
        fault_proxy.expect(Fault("network", "GET", "/networks", Status(status), times=3)),
        fault_proxy.expect(Fault("network", "DELETE", "/security-groups/", Status(status), times=3)),
        fault_proxy.expect(Fault("compute", "GET", "/servers", Status(status), times=2)),
    ]
    assert sweep() == []
    assert [fault.hits for fault in faults] == [3, 3, 2]


def test_a_token_that_ends_midway(
    marked: MarkedThings, sweep: Sweeper, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked.network()
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(fault_proxy.clouds_yaml))
    revoked = fault_proxy.expect(Fault("network", "DELETE", "/subnets/", fault_proxy.revoke_token()))
    assert sweep() == []
    assert revoked.hits == 1


def test_what_cannot_be_looked_at_is_unknown_and_not_nothing(
    marked: MarkedThings, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, cloud: Connection
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(fault_proxy.clouds_yaml))
    monkeypatch.setattr("dhctl.infra.openstack.cloud.RETRIES", 1)
    fault_proxy.expect(Fault("network", "GET", "/routers", Status(503), times=99))
    checks = inventory.look(Project(connect(OpenStackSection())), marked.run_id, {})
    states = {check.place: check.state for check in checks}
    assert states["routers"] == "unknown"
    assert states["networks"] == "none"


def test_reap_ends_what_is_past_its_lease_and_leaves_the_living(
    openstack_cloud: OpenStackCloud, cloud: Connection, foreign: Foreign
) -> None:
    from dhctl.infra.openstack import reap

    late, living = MarkedThings(cloud, expires_in_s=-5), MarkedThings(cloud)
    made: list[Any] = [late.network(), living.network()]
    late.keypair_and_group()
    try:
        (found,) = [run for run in reap.expired(cloud, ignore) if run.run_id == late.run_id]
        assert found.expires_at < time.time()
        ended = reap.end(cloud, found, ignore)
        assert ended.clean
        still = {run.run_id for run in reap.marked_runs(cloud, ignore)}
        assert living.run_id in still
        assert late.run_id not in still
        assert len(made) == 2
    finally:
        late.remove()
        living.remove()
