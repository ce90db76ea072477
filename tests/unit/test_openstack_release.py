"""Before the stack goes: the autoscaler stops, its credential and the workers go; the head's own journal is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.events import Event
from dhctl.infra.head_ledger import adopt_ledger
from dhctl.infra.ledger import Ledger, last
from dhctl.infra.openstack import release
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.mark import HEAD, WORKER, Mark
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.openstack.userdata import STOP_AUTOSCALER
from dhctl.infra.record import RunRecord
from dhctl.infra.ssh import SshEndpoint, pin_host_key
from unit.fakes import script
from unit.http_cloud import HttpCloud

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC2S0EDdNxCjYiR0WdQGVa3l4bpcSZPbFYoFbYdPeiPN"


@pytest.fixture
def project(http_cloud: HttpCloud) -> Project:
    return Project(connect(OpenStackSection()))


@pytest.fixture
def mark(record: RunRecord) -> Mark:
    return Mark(record.run_id, 1_800_000_000)


@pytest.fixture
def head(tmp_path: Path) -> SshEndpoint:
    (tmp_path / "key").touch()
    pin_host_key(tmp_path / "known_hosts", "head", KEY)
    return SshEndpoint("192.0.2.7", "debian", tmp_path / "key", tmp_path / "known_hosts", "head")


Ssh = Callable[[str], Path]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """Puts an `ssh` on PATH that notes its last word and then does what it is told."""

    def put(body: str) -> Path:
        noted = tmp_path / "noted"
        note = f"import sys; open({str(noted)!r}, 'a').write(sys.argv[-1] + '\\n')\n"
        monkeypatch.setenv("PATH", f"{script(tmp_path / 'bin' / 'ssh', note + body).parent}:/usr/bin:/bin")
        return noted

    return put


def fill(there: HttpCloud, mark: Mark) -> None:
    there.add("servers", "head", name=mark.name("head"), metadata=mark.metadata(HEAD))
    for worker in ("w1", "w2"):
        there.add("servers", worker, name=mark.name(worker), metadata=mark.metadata(WORKER))
    there.add("servers", "foreign", metadata=Mark("dh-ccccbbbbaa", 5).metadata(WORKER))
    there.add("application_credentials", "credential", name=mark.name("credential"))
    there.add("networks", "net", tags=mark.tags)


def test_credential_and_servers_go_and_the_rest_is_the_stacks(
    http_cloud: HttpCloud, project: Project, record: RunRecord, mark: Mark, told: list[Event]
) -> None:
    fill(http_cloud, mark)
    release.release_nodes(record, project, None, told.append)
    assert http_cloud.deleted == ["credential", "head", "w1", "w2"]
    assert http_cloud.ids("servers") == ["foreign"]
    release.release_nodes(record, project, None, told.append)
    assert len(http_cloud.deleted) == 4


def test_the_autoscaler_is_stopped_before_anything_goes(
    http_cloud: HttpCloud, project: Project, record: RunRecord, head: SshEndpoint, ssh: Ssh
) -> None:
    noted = ssh("")
    release.release_nodes(record, project, head, lambda event: None)
    assert noted.read_text() == f"sh -c '{STOP_AUTOSCALER}'\n"
    assert last(record.ledger.entries(), "autoscaler.stop", "done") is not None
    release.release_nodes(record, project, head, lambda event: None)
    assert noted.read_text().count(STOP_AUTOSCALER) == 1, "a stop is for good"
    record.ledger.note("stack.up", "done")
    release.release_nodes(record, project, head, lambda event: None)
    assert noted.read_text().count(STOP_AUTOSCALER) == 2, "but the head that took its place has another autoscaler"


@pytest.mark.parametrize("body", ["sys.exit(255)", "sys.stderr.write('no python\\n'); sys.exit(127)"])
def test_a_head_that_cannot_be_reached_does_not_keep_workers_alive(
    http_cloud: HttpCloud, project: Project, record: RunRecord, head: SshEndpoint, ssh: Ssh, body: str
) -> None:
    fill(http_cloud, Mark(record.run_id, 5))
    ssh(body)
    release.release_nodes(record, project, head, lambda event: None)
    assert http_cloud.deleted == ["credential", "head", "w1", "w2"]
    noted = last(record.ledger.entries(), "autoscaler.stop", "note")
    assert noted is not None
    assert noted.detail["unreachable"]


def test_a_project_that_cannot_be_listed_is_told(http_cloud: HttpCloud, project: Project, record: RunRecord) -> None:
    http_cloud.broken["/compute/v2.1/servers"] = [500]
    with pytest.raises(CloudError, match="cannot list servers"):
        release.release_nodes(record, project, None, lambda event: None)


@pytest.fixture
def journal(record: RunRecord) -> Ledger:
    """The head's, as it was copied."""
    record.logs_dir.mkdir()
    ledger = Ledger(record.logs_dir / "ledger.jsonl")
    ledger.create()
    return ledger


def test_the_heads_journal_joins_the_runs_own_once(record: RunRecord, journal: Ledger) -> None:
    for node in ("w-1", "w-2"):
        journal.intent("node.start", node=node)
        journal.done("node.start", node=node, server=f"id-{node}")
    adopt_ledger(record)
    journal.done("node.leave", node="w-1")
    adopt_ledger(record)
    adopted = [e for e in record.ledger.entries() if e.detail.get("by") == "head"]
    assert [(e.act, e.phase, e.detail["node"]) for e in adopted] == [
        ("node.start", "intent", "w-1"),
        ("node.start", "done", "w-1"),
        ("node.start", "intent", "w-2"),
        ("node.start", "done", "w-2"),
        ("node.leave", "done", "w-1"),
    ]
    assert adopted[1].detail["server"] == "id-w-1"
    assert adopted[1].detail["at_head"] == journal.entries()[1].at.isoformat()


def test_a_head_without_a_journal_has_nothing_to_adopt(record: RunRecord) -> None:
    before = record.ledger.entries()
    adopt_ledger(record)
    assert record.ledger.entries() == before
