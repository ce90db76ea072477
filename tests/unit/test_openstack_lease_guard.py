"""The end of a run at its lease, by its own nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhctl.infra.ledger import Ledger
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.openstack.node import lease_guard
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.lease_guard import LeaseGuard, only_one
from dhctl.infra.openstack.node.servers import ComputeError
from unit.node_fakes import HEAD_NAME, RUN_ID, Clock, FakeNova, make_node_folder, make_node_settings, told_by

WORKER = f"{RUN_ID}-w-0a0b0c0d"


class Ending(FakeNova):
    """A deleted server stays listed as ending for one look. What happens is noted in order."""

    def __init__(self) -> None:
        super().__init__()
        self.add(HEAD_NAME, role="head")
        self.add(WORKER)

    def servers(self):  # type: ignore[no-untyped-def]
        found = super().servers()
        for server in found:
            if server.ending:
                self.by_id.pop(server.id)
        return found

    def delete(self, server_id: str) -> None:
        if self.keep:
            raise self.keep
        self.deleted.append(server_id)
        self.change(self.by_id[server_id].name, ending=True)


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_node_folder(tmp_path / "node")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease_guard, "time", made)
    return made


def make_guard(folder: ServerFolder, nova: FakeNova, clock: Clock, **changes: object) -> LeaseGuard:
    settings = make_node_settings(**{"expires_at": int(clock.now) + 100, **changes})
    return LeaseGuard(settings, NodeJournal(folder), lambda: nova, clock.sleep)


def test_the_head_acts_a_minute_after_the_lease_and_workers_later(folder: ServerFolder, clock: Clock) -> None:
    head = make_guard(folder, FakeNova(), clock)
    worker = make_guard(folder, FakeNova(), clock, role="worker", node_id=WORKER)
    began = clock.now
    head.wait()
    assert 159 <= clock.now - began <= 161
    worker.wait()
    assert 249 <= clock.now - began <= 251


def test_others_go_first_and_the_own_server_last(folder: ServerFolder, clock: Clock) -> None:
    nova = Ending()
    make_guard(folder, nova, clock).end_run()
    assert nova.deleted == [f"id-of-{WORKER}", f"id-of-{HEAD_NAME}"]
    assert nova.names() == []
    acts = [(e.act, e.phase) for e in Ledger(folder.ledger).entries()]
    assert acts[0] == ("lease.end", "intent")
    assert acts[-1] == ("lease.end", "done")
    assert acts.count(("lease.delete", "done")) == 2


def test_a_worker_ends_the_run_when_the_head_is_dead(folder: ServerFolder, clock: Clock) -> None:
    nova = Ending()
    make_guard(folder, nova, clock, role="worker", node_id=WORKER).end_run()
    assert nova.deleted == [f"id-of-{HEAD_NAME}", f"id-of-{WORKER}"]


def test_it_tries_again_until_all_is_gone(folder: ServerFolder, clock: Clock) -> None:
    nova = Ending()
    guard = make_guard(folder, nova, clock)
    troubles = [ComputeError(503, "unavailable"), ComputeError(500, "oops"), None]

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        nova.down = nova.keep = None
        if troubles:
            nova.keep = troubles.pop(0)

    nova.down = ComputeError(0, "no route to host")
    guard._sleep = sleep
    guard.end_run()
    assert nova.names() == []
    reasons = [e["reason"] for e in told_by(folder) if e["kind"] == "lease"]
    assert "cannot be listed" in reasons[1]
    assert "no route to host" in reasons[1]
    assert "unavailable" in reasons[2]


def test_a_server_that_will_not_go_does_not_keep_the_own_one_for_ever(folder: ServerFolder, clock: Clock) -> None:
    stuck = ComputeError(409, "cannot be deleted in this state")

    class Stuck(Ending):
        def delete(self, server_id: str) -> None:
            if server_id == f"id-of-{WORKER}" and clock.now < began + 900:
                raise stuck
            super().delete(server_id)

    nova = Stuck()
    began = clock.now
    make_guard(folder, nova, clock).end_run()
    assert nova.deleted[0] == f"id-of-{HEAD_NAME}"
    assert clock.now - began >= lease_guard.PATIENCE_S


def test_one_guard_a_node(tmp_path: Path) -> None:
    assert only_one(tmp_path / "lock")
    assert not only_one(tmp_path / "lock")
