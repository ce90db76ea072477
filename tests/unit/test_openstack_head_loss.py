"""A head's server that is lost, and what goes before the next one is made: servers of head and workers alone."""

from __future__ import annotations

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event
from dhctl.infra.openstack import sweep
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.head_loss import clear_head, lost_head
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.mark import HEAD, WORKER, Mark
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.record import RunRecord
from unit.http_cloud import HttpCloud


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "GONE_S", 0.05)


@pytest.fixture
def project(http_cloud: HttpCloud) -> Project:
    return Project(connect(OpenStackSection()))


@pytest.fixture
def mark(record: RunRecord) -> Mark:
    return Mark(record.run_id, 1_800_000_000)


@pytest.mark.parametrize(
    ("status", "lost"),
    [("ACTIVE", False), ("REBOOT", False), ("HARD_REBOOT", False), ("SHUTOFF", True), ("ERROR", True)],
)
def test_a_head_is_lost_that_does_not_come_back_by_itself(
    http_cloud: HttpCloud, project: Project, mark: Mark, status: str, lost: bool
) -> None:
    http_cloud.add("servers", "s1", name="head", metadata=mark.metadata(HEAD), status=status)
    assert lost_head(project, "s1") == (f"server head is {status}" if lost else "")


def test_a_server_that_is_gone_is_lost(http_cloud: HttpCloud, project: Project) -> None:
    assert lost_head(project, "s1") == "server s1 is gone"


def test_a_cloud_that_does_not_answer_knows_nothing(http_cloud: HttpCloud, project: Project) -> None:
    http_cloud.broken["/compute/v2.1/servers/s1"] = [500]
    with pytest.raises(CloudError, match="cannot look at the head's server"):
        lost_head(project, "s1")


def test_servers_of_head_and_workers_go_and_the_rest_stays(
    http_cloud: HttpCloud, project: Project, record: RunRecord, mark: Mark, told: list[Event]
) -> None:
    http_cloud.add("servers", "head", name=mark.name("head"), metadata=mark.metadata(HEAD))
    http_cloud.add("servers", "w1", name=mark.name("w1"), metadata=mark.metadata(WORKER))
    http_cloud.add("servers", "foreign", metadata=Mark("dh-ccccbbbbaa", 5).metadata(WORKER))
    http_cloud.add("application_credentials", "credential", name=mark.name("credential"))
    http_cloud.add("ports", "port", name=mark.name("head"), tags=mark.tags)
    for _ in range(2):
        clear_head(record, project, told.append)
    assert http_cloud.deleted == ["head", "w1"]
    assert http_cloud.ids("servers") == ["foreign"]


def test_a_server_that_does_not_go_is_told(
    http_cloud: HttpCloud, project: Project, record: RunRecord, mark: Mark, told: list[Event]
) -> None:
    http_cloud.add("servers", "head", name=mark.name("head"), metadata=mark.metadata(HEAD))
    http_cloud.broken["/compute/v2.1/servers/head"] = [409]
    with pytest.raises(ClusterError, match="1 servers of the lost head do not go"):
        clear_head(record, project, told.append)
