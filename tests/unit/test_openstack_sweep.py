"""The sweep: all that has the mark goes, in the order of dependencies; nothing of others; each refusal is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dhctl.infra.events import Event, ResourceChanged
from dhctl.infra.openstack import inventory, sweep
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.kinds import KINDS, Project
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.record import RunRecord
from unit.http_cloud import HANGS_UP, HttpCloud

RUN = "dh-aaaabbbbcc"
MARK = Mark(RUN, 1_800_000_000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PAUSE_S", 0.0)
    monkeypatch.setattr(sweep, "GONE_S", 0.05)
    monkeypatch.setattr(sweep, "ROUNDS_S", 2.0)


@pytest.fixture
def sweeping(http_cloud: HttpCloud, record: RunRecord, told: list[Event]) -> Callable[[], None]:
    project = Project(connect(OpenStackSection()))
    return lambda: sweep.Sweep(project, RUN, record.ledger, told.append).run()


def fill(there: HttpCloud) -> None:
    """A run's whole cluster, with a router on its subnet."""
    there.add("servers", "head", name=MARK.name("head"), metadata=MARK.metadata(HEAD))
    there.add("volumes", "volume", metadata=MARK.metadata(HEAD))
    there.add("snapshots", "snapshot", metadata={}, volume_id="volume")
    for kind in ("networks", "subnets", "routers", "security_groups", "floatingips"):
        there.add(kind, kind, tags=MARK.tags)
    there.add("loadbalancers", "balancer", name=MARK.name("lb"))
    interface(there, "interface", "subnets")
    for kind in ("os-keypairs", "os-server-groups"):
        there.add(kind, MARK.name(kind), name=MARK.name(kind))
    there.add("application_credentials", "credential", name=MARK.name("credential"))


def interface(there: HttpCloud, ident: str, subnet: str, **values: Any) -> None:
    """A router's interface, which carries no mark."""
    owner = {"device_id": "routers", "device_owner": "network:router_interface"}
    there.add("ports", ident, tags=[], **{**owner, "fixed_ips": [{"subnet_id": subnet}], **values})


def refusals(record: RunRecord) -> dict[str, str]:
    return {ident: why for ident, why in inventory.refusals(record.ledger.entries()).items() if why}


def test_all_kinds_go_credentials_first(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord, told: list[Event]
) -> None:
    fill(http_cloud)
    sweeping()
    assert [kind for kind, things in http_cloud.things.items() if things] == []
    assert http_cloud.deleted == [
        *("credential", "head", "balancer", "floatingips", "snapshot", "volume", "routers"),
        *("subnets", "networks", "security_groups", MARK.name("os-keypairs"), MARK.name("os-server-groups")),
    ]
    done = [e.detail["id"] for e in record.ledger.entries() if (e.act, e.phase) == ("resource.delete", "done")]
    assert done == http_cloud.deleted
    assert [e.status for e in told if isinstance(e, ResourceChanged)] == ["deleting", "deleted"] * len(done)


def test_nothing_of_others_is_touched(http_cloud: HttpCloud, sweeping: Callable[[], None]) -> None:
    other = Mark("dh-ccccbbbbaa", 5)
    http_cloud.add("servers", "s1", metadata=other.metadata(HEAD))
    http_cloud.add("servers", "s2", name=MARK.name("head"), metadata={})
    http_cloud.add("networks", "n1", name=MARK.name("net"), tags=other.tags)
    http_cloud.add("networks", "n2", name=MARK.name("net"), tags=["prod"])
    sweeping()
    assert http_cloud.deleted == []


def test_a_project_without_anything_is_left_alone(http_cloud: HttpCloud, sweeping: Callable[[], None]) -> None:
    sweeping()
    sweeping()
    assert http_cloud.deleted == []


def test_servers_are_remembered_for_the_ports_that_outlive_them(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord
) -> None:
    http_cloud.add("servers", "s1", metadata=MARK.metadata("worker"))
    http_cloud.add("ports", "p1", tags=[], device_id="s1", device_owner="compute:nova")
    sweeping()
    assert http_cloud.deleted == ["s1", "p1"]
    assert inventory.known_servers(RUN, record.ledger.entries()) == {f"{RUN}/s1"}


def test_what_the_cloud_refuses_is_told_with_its_words(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord, told: list[Event]
) -> None:
    fill(http_cloud)
    http_cloud.refuses["floatingips"] = (403, "not allowed by policy")
    sweeping()
    assert refusals(record) == {"floatingips": "not allowed by policy (HTTP 403)"}
    assert http_cloud.deleted.count("floatingips") == 2, "once more, and no oftener"
    assert [kind for kind, things in http_cloud.things.items() if things] == ["floatingips"]
    failed = [e for e in told if isinstance(e, ResourceChanged) and e.status == "failed"]
    assert {(e.kind, e.detail) for e in failed} == {("floating IP", "not allowed by policy (HTTP 403)")}


def test_a_foreign_port_is_named_and_stays(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord
) -> None:
    http_cloud.add("networks", "n1", tags=MARK.tags)
    http_cloud.add("subnets", "sub1", tags=MARK.tags)
    theirs = {"name": "db", "device_owner": "compute:nova", "device_id": "s-theirs", "tags": []}
    http_cloud.add("ports", "p1", network_id="n1", fixed_ips=[{"subnet_id": "sub1"}], **theirs)
    http_cloud.add("ports", "p2", network_id="n1", fixed_ips=[], tags=[], device_owner="network:dhcp", device_id="d")
    http_cloud.refuses |= {"n1": (409, "Network in use."), "sub1": (409, "Subnet in use.")}
    sweeping()
    held = "held by port db (p1, compute:nova s-theirs), which is not this run's: "
    assert refusals(record) == {"n1": f"{held}Network in use. (HTTP 409)", "sub1": f"{held}Subnet in use. (HTTP 409)"}
    assert http_cloud.ids("ports") == ["p1", "p2"]


def test_a_port_in_the_runs_group_is_named(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord
) -> None:
    http_cloud.add("security_groups", "g1", tags=MARK.tags)
    http_cloud.add("ports", "p1", tags=[], device_owner="", device_id="", security_groups=["g1", "g2"])
    http_cloud.refuses["g1"] = (409, "Security Group in use.")
    sweeping()
    assert refusals(record)["g1"].startswith("held by port p1 (p1), which is not this run's: Security Group in use.")


def test_a_router_is_taken_off_the_runs_subnet_only(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord
) -> None:
    http_cloud.add("routers", "routers", tags=MARK.tags)
    http_cloud.add("subnets", "ours", tags=MARK.tags)
    interface(http_cloud, "p-ours", "ours")
    interface(http_cloud, "p-theirs", "theirs")
    address = {"router_id": "routers", "floating_ip_address": "198.51.100.4", "tags": []}
    http_cloud.add("floatingips", "f-theirs", **address)
    http_cloud.refuses["routers"] = (409, "Router in use.")
    sweeping()
    assert http_cloud.ids("ports") == ["p-theirs"]
    assert http_cloud.ids("floatingips") == ["f-theirs"]
    told = refusals(record)["routers"]
    assert "p-theirs" in told
    assert "floating IP 198.51.100.4 (f-theirs)" in told


def test_holders_that_cannot_be_listed_leave_the_apis_own_words(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_cloud.add("security_groups", "g1", tags=MARK.tags)
    http_cloud.refuses["g1"] = (409, "Security Group in use.")
    http_cloud.broken["/network/v2.0/ports"] = [500]
    with pytest.raises(CloudError, match="cannot list ports"):
        sweeping()
    assert refusals(record)["g1"] == "Security Group in use. (HTTP 409)"


@pytest.mark.parametrize("trouble", [500, HANGS_UP])
def test_trouble_with_one_kind_does_not_keep_the_others(
    http_cloud: HttpCloud, sweeping: Callable[[], None], trouble: int
) -> None:
    fill(http_cloud)
    http_cloud.broken["/compute/v2.1/os-server-groups"] = [trouble]
    with pytest.raises(CloudError, match="cannot list server groups on OpenStack"):
        sweeping()
    assert [kind for kind, things in http_cloud.things.items() if things] == ["os-server-groups"]


@pytest.mark.parametrize("trouble", [503, HANGS_UP])
def test_trouble_that_passes_is_outlived(
    http_cloud: HttpCloud, sweeping: Callable[[], None], monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    monkeypatch.setattr(sweep, "ROUNDS_S", 5.0)
    http_cloud.add("networks", "n1", tags=MARK.tags)
    http_cloud.broken["/network/v2.0/networks/n1"] = [trouble, trouble, 200]
    sweeping()
    assert http_cloud.ids("networks") == []


def test_what_is_still_there_after_its_deletion_was_taken_is_told(
    http_cloud: HttpCloud, sweeping: Callable[[], None], told: list[Event]
) -> None:
    http_cloud.add("servers", "s1", metadata=MARK.metadata(HEAD))
    http_cloud.stays.add("s1")
    sweeping()
    failed = [e.detail for e in told if isinstance(e, ResourceChanged) and e.status == "failed"]
    assert failed[0] == "still there 0 s after its deletion was taken"


def test_what_somebody_else_deleted_meanwhile_is_no_refusal(
    http_cloud: HttpCloud, sweeping: Callable[[], None], record: RunRecord
) -> None:
    http_cloud.add("networks", "n1", tags=MARK.tags)
    http_cloud.refuses["n1"] = (404, "No such network.")
    http_cloud.stays.add("n1")
    sweeping()
    assert refusals(record) == {}


def test_every_kind_tells_a_command_and_a_place() -> None:
    assert len({kind.place for kind in KINDS}) == len(KINDS)
    assert [kind.name for kind in KINDS if not kind.command.startswith("openstack ")] == []
