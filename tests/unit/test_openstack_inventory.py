"""Looking at a project through the raw APIs: everything with the run's mark, nothing of others, and no silence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from openstack.connection import Connection

from dhctl.infra.events import ignore
from dhctl.infra.ledger import Entry
from dhctl.infra.openstack import inventory
from dhctl.infra.openstack.cloud import connect
from dhctl.infra.openstack.kinds import KINDS, Project, kinds_of
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.receipt import Check
from unit.http_cloud import HttpCloud

RUN, OTHER = "dh-aaaabbbbcc", "dh-ccccbbbbaa"
MARK = Mark(RUN, 1_800_000_000)


@pytest.fixture
def cloud(http_cloud: HttpCloud) -> Connection:
    return connect(OpenStackSection())


def rows(cloud: Connection, known: frozenset[str] = frozenset(), run: str = RUN) -> dict[str, Check]:
    return {check.place: check for check in inventory.look(Project(cloud, known), run, {})}


def fill(there: HttpCloud, mark: Mark, prefix: str) -> None:
    """One of each kind."""
    there.add("servers", f"{prefix}-server", name=mark.name("head"), metadata=mark.metadata(HEAD))
    for kind in ("volumes", "snapshots"):
        there.add(kind, f"{prefix}-{kind}", name=mark.name(kind), metadata=mark.metadata(HEAD))
    for kind in ("networks", "subnets", "routers", "security_groups", "floatingips"):
        there.add(kind, f"{prefix}-{kind}", name=mark.name(kind), tags=mark.tags)
    there.add("ports", f"{prefix}-port", name=mark.name("head"), tags=mark.tags, device_owner="", device_id="")
    for kind in ("os-keypairs", "os-server-groups", "loadbalancers"):
        there.add(kind, mark.name(kind), name=mark.name(kind))
    told = {"description": mark.text}
    there.add("application_credentials", f"{prefix}-credential", name=mark.name("credential"), **told)


def test_each_kind_is_found_and_told_with_the_command_that_removes_it(http_cloud: HttpCloud, cloud: Connection) -> None:
    fill(http_cloud, MARK, "ours")
    fill(http_cloud, Mark(OTHER, 5), "others")
    found = rows(cloud)
    assert list(found) == [kind.place for kind in KINDS]
    assert {place: len(check.found) for place, check in found.items()} == {kind.place: 1 for kind in KINDS}
    assert found["servers"].found[0].remove_with == "openstack server delete --wait ours-server"
    assert found["keypairs"].found[0].remove_with == f"openstack keypair delete {RUN}-os-keypairs"
    assert not any("others" in left.remove_with for check in found.values() for left in check.found)
    assert all(RUN in check.looked_for for check in found.values())


def test_a_run_of_which_nothing_is_there_is_clean(http_cloud: HttpCloud, cloud: Connection) -> None:
    fill(http_cloud, Mark(OTHER, 5), "others")
    assert {check.state for check in rows(cloud).values()} == {"none"}


def test_a_maker_that_died_before_it_wrote_tags_left_the_description(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.add("networks", "n1", name="x", tags=[], description=MARK.text)
    assert rows(cloud)["networks"].state == "left"


def port(there: HttpCloud, ident: str, device: str, owner: str = "compute:nova") -> None:
    there.add("ports", ident, tags=[], description="", device_id=device, device_owner=owner)


def test_ports_that_nova_made_are_known_by_their_server(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.add("servers", "s1", metadata=MARK.metadata("worker"))
    port(http_cloud, "p1", "s1")
    port(http_cloud, "p2", "s-of-others")
    port(http_cloud, "p3", "", owner="")
    assert [left.name for left in rows(cloud)["ports"].found] == ["p1 (p1)"]


def test_ports_that_outlive_their_server_are_known_by_the_ledger(http_cloud: HttpCloud, cloud: Connection) -> None:
    port(http_cloud, "p1", "s-gone")
    port(http_cloud, "p2", "s-gone", owner="network:dhcp")
    assert rows(cloud)["ports"].state == "none"
    assert len(rows(cloud, frozenset({f"{RUN}/s-gone"}))["ports"].found) == 1
    assert rows(cloud, frozenset({f"{OTHER}/s-gone"}))["ports"].state == "none"


def test_snapshots_of_the_runs_volumes_hold_them(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.add("volumes", "v1", metadata=MARK.metadata(HEAD))
    http_cloud.add("snapshots", "sn1", metadata={}, volume_id="v1")
    http_cloud.add("snapshots", "sn2", metadata={}, volume_id="v2")
    assert [left.name for left in rows(cloud)["volume snapshots"].found] == ["sn1 (sn1)"]


def test_an_api_that_does_not_answer_is_unknown_in_its_own_words(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.broken["/volume/v3/volumes"] = [500]
    found = rows(cloud)
    assert {place for place, check in found.items() if check.state == "unknown"} == {"volumes", "volume snapshots"}
    assert found["volumes"].unknown.startswith("cannot list volumes on OpenStack: out of order (HTTP 500)")


def test_only_services_of_the_catalog_are_looked_at(http_cloud: HttpCloud) -> None:
    for absent in ("load-balancer", "block-storage"):
        del http_cloud.services[absent]
    absent_kinds = {"load balancer", "volume", "volume snapshot"}
    assert {kind.name for kind in KINDS} - {kind.name for kind in kinds_of(connect(OpenStackSection()))} == absent_kinds


def test_cinder_under_its_older_name_is_looked_at(http_cloud: HttpCloud) -> None:
    http_cloud.services["volumev3"] = http_cloud.services.pop("block-storage")
    http_cloud.add("volumes", "v1", metadata=MARK.metadata(HEAD))
    assert rows(connect(OpenStackSection()))["volumes"].state == "left"


def test_all_runs_are_found_in_the_order_of_deletion(http_cloud: HttpCloud, cloud: Connection) -> None:
    fill(http_cloud, Mark(OTHER, 5), "others")
    fill(http_cloud, MARK, "ours")
    http_cloud.add("servers", "s-foreign", name="web", metadata={"role": "web"})
    found = list(inventory.find_all(cloud, ignore))
    assert {owned.mark.run_id for owned in found} == {RUN, OTHER}
    assert [owned.kind for owned in found][::2] == [kind.name for kind in KINDS]


def entry(act: str, phase: str, **detail: object) -> Entry:
    return Entry(datetime.now(UTC), act, phase, detail)  # type: ignore[arg-type]  # a phase of the ledger


@pytest.fixture
def deletion() -> Callable[..., Entry]:
    return lambda phase, ident, **detail: entry("resource.delete", phase, id=ident, **detail)


def test_the_newest_refusal_of_a_resource_counts(deletion: Callable[..., Entry]) -> None:
    told = [
        deletion("intent", "n1"),
        deletion("failed", "n1", reason="in use"),
        deletion("intent", "n2"),
        deletion("failed", "n2", reason="not by policy"),
        deletion("intent", "n1"),
        deletion("done", "n1"),
    ]
    assert inventory.refusals(told) == {"n1": "", "n2": "not by policy"}


def test_refusals_stand_beside_what_is_left(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.add("networks", "n1", name="x", tags=MARK.tags)
    checks = {c.place: c for c in inventory.look(Project(cloud), RUN, {"n1": "in use"})}
    assert checks["networks"].found[0].reason == "in use"


def test_servers_are_remembered_by_run() -> None:
    entries = [
        entry("servers.seen", "note", servers=["s1", "s2"]),
        entry("up", "intent"),
        entry("servers.seen", "note"),
    ]
    assert inventory.known_servers(RUN, entries) == {f"{RUN}/s1", f"{RUN}/s2"}
