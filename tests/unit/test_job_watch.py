"""A job is followed over lost connections, and a head that is gone is told from one that is out of sight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dhctl.infra import job_stream, job_watch, node_watch
from dhctl.infra.errors import ClusterError, HeadLostError, InterruptedRunError, JobFailedError, RefusedError
from dhctl.infra.events import Event, JobLogged
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome
from dhctl.infra.job_watch import JobWatch, Submitted
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord
from dhctl.infra.up import Tools
from unit.fakes import FakeEngine, FakeTarget

CONNECTION = Connection("http://127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "token", "127.0.0.1")


@dataclass
class Status:
    value: str

    def is_terminal(self) -> bool:
        return self.value not in ("PENDING", "RUNNING")


@dataclass
class FakeRay:
    """A Ray with one job. `log` is what there is of it so far; while `away`, nothing answers."""

    log: str = ""
    status: str = "RUNNING"
    exit_code: int | None = None
    head: str = "head-1"
    away: bool = False
    stopped: int = 0
    ask_again: list[Any] = field(default_factory=list)
    """Steps that happen, one each time that somebody connects while Ray is away."""

    def _answer(self) -> None:
        if self.away:
            raise RuntimeError("connection refused")

    def get_job_logs(self, submission: str) -> str:
        self._answer()
        return self.log

    def get_job_status(self, submission: str) -> Status:
        self._answer()
        return Status(self.status)

    def get_job_info(self, submission: str) -> Any:
        self._answer()
        return SimpleNamespace(status=Status(self.status), driver_exit_code=self.exit_code, message="")

    def stop_job(self, submission: str) -> None:
        self.stopped += 1
        self.status = "STOPPED"

    async def tail_job_logs(self, submission: str) -> AsyncIterator[str]:
        self._answer()
        yield self.log
        self._answer()

    def head_id(self, connection: Connection) -> str:
        if self.away:
            raise ClusterError("Ray's dashboard does not answer")
        return self.head


class Reachable(FakeTarget):
    """A place at which Ray can be met, also when it does not answer."""

    def __init__(self, ray: FakeRay, **more: Any) -> None:
        super().__init__(**more)
        self.ray = ray

    @contextmanager
    def connect(self, record: RunRecord) -> Iterator[Connection]:
        if self.ray.away and self.ray.ask_again:
            self.ray.ask_again.pop(0)()
        yield CONNECTION


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setattr(job_watch, "jobs_client", lambda connection: found)
    monkeypatch.setattr(job_watch, "head_id", found.head_id)
    monkeypatch.setattr(node_watch, "listed_nodes", lambda connection: {})
    for module, name in ((job_watch, "LOOK_EVERY_S"), (job_watch, "CONFIRM_S"), (job_stream, "RECONNECT_S")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(job_watch, "PATIENCE_S", 0.2)
    return found


def watch(record: RunRecord, target: FakeTarget, told: list[Event], interrupts: Interrupts | None = None) -> JobOutcome:
    tools = Tools(record.home, target, lambda run: FakeEngine(), told.append, interrupts or Interrupts())  # type: ignore[arg-type, return-value]
    job = Submitted(1, "s-1", datetime.now(UTC), "head-1")
    with JobJournal(record.job_dir(1), told.append) as journal:
        return JobWatch(record, tools, job, journal).to_end()


def lines(told: list[Event]) -> list[str]:
    return [event.line for event in told if isinstance(event, JobLogged)]


def test_a_job_is_followed_to_its_end(record: RunRecord, ray: FakeRay, told: list[Event]) -> None:
    ray.log, ray.status, ray.exit_code = "one\ntwo\n", "SUCCEEDED", 0
    outcome = watch(record, Reachable(ray), told)
    assert (outcome.status, outcome.exit_code, outcome.last_line) == ("SUCCEEDED", 0, "two")
    assert lines(told) == ["one", "two"]


def test_what_the_record_has_is_not_shown_again(record: RunRecord, ray: FakeRay, told: list[Event]) -> None:
    record.job_dir(1).mkdir(parents=True)
    (record.job_dir(1) / "driver.log").write_text("one\ntw")
    ray.log, ray.status = "one\ntwo\nthree\n", "SUCCEEDED"
    watch(record, Reachable(ray), told)
    assert lines(told) == ["two", "three"]
    assert (record.job_dir(1) / "driver.log").read_text() == ray.log


def test_a_head_that_was_only_out_of_sight_goes_on(record: RunRecord, ray: FakeRay, told: list[Event]) -> None:
    def back() -> None:
        ray.away, ray.log, ray.status = False, "one\ntwo\n", "SUCCEEDED"

    ray.away, ray.ask_again = True, [lambda: None, lambda: None, back]
    assert watch(record, Reachable(ray), told).status == "SUCCEEDED"
    assert lines(told) == ["one", "two"]
    assert any("Ray is lost from sight" in str(event) for event in told)
    assert any("the head answers again" in str(event) for event in told)


def test_a_head_of_which_its_place_says_that_it_is_gone_is_lost(
    record: RunRecord, ray: FakeRay, told: list[Event]
) -> None:
    target = Reachable(ray)
    ray.away, target.lost = True, "pod head is gone"
    with pytest.raises(HeadLostError, match="the head is lost: pod head is gone") as raised:
        watch(record, target, told)
    assert not raised.value.answers


def test_a_head_that_was_started_anew_lost_its_job(record: RunRecord, ray: FakeRay, told: list[Event]) -> None:
    ray.head, ray.status = "head-2", "FAILED"
    with pytest.raises(HeadLostError, match="started anew") as raised:
        watch(record, Reachable(ray), told)
    assert raised.value.answers


@pytest.mark.parametrize(("code", "lost"), [(None, True), (143, True), (-15, True), (1, False), (124, False)])
def test_a_driver_that_was_killed_makes_look_at_the_head_again(
    record: RunRecord, ray: FakeRay, told: list[Event], monkeypatch: pytest.MonkeyPatch, code: int | None, lost: bool
) -> None:
    ray.log, ray.status, ray.exit_code = "one\n", "FAILED", code
    heads = iter(["head-1", "head-2"])
    monkeypatch.setattr(job_watch, "head_id", lambda connection: next(heads))
    if lost:
        with pytest.raises(HeadLostError):
            watch(record, Reachable(ray), told)
    else:
        assert watch(record, Reachable(ray), told).exit_code == code


def test_a_head_that_is_there_and_silent_is_lost_after_a_while(
    record: RunRecord, ray: FakeRay, told: list[Event]
) -> None:
    ray.away = True
    with pytest.raises(HeadLostError, match="the head is there, but its Ray did not answer"):
        watch(record, Reachable(ray), told)


def test_a_client_that_is_cut_off_from_everything_does_not_call_the_head_lost(
    record: RunRecord, ray: FakeRay, told: list[Event]
) -> None:
    ray.away = True
    cut_off = RefusedError("no route to the cloud")
    with pytest.raises(ClusterError, match=r"neither Ray nor its place answered .*no route to the cloud"):
        watch(record, Reachable(ray, fails={"lost_head": cut_off}), told)


def test_a_silent_ray_is_noticed_though_the_log_hangs(
    record: RunRecord, ray: FakeRay, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watch, "SILENT_S", 0.3)
    target = Reachable(ray)
    target.lost = "server head is SHUTOFF"
    ray.ask_again = []

    def silent(connection: Connection) -> dict[str, str]:
        ray.away = True
        raise ClusterError("no answer")

    async def hangs(submission: str) -> AsyncIterator[str]:
        import asyncio

        await asyncio.sleep(5)
        yield ""

    ray.log = "one\n"
    monkeypatch.setattr(ray, "tail_job_logs", hangs, raising=False)
    monkeypatch.setattr(node_watch, "listed_nodes", silent)
    monkeypatch.setattr(node_watch, "EVERY_S", 0.02)
    with pytest.raises(HeadLostError, match="SHUTOFF"):
        watch(record, target, told)
    assert any("it did not answer for" in str(event) for event in told)


def test_a_request_to_stop_stops_the_job(record: RunRecord, ray: FakeRay, told: list[Event]) -> None:
    interrupts = Interrupts()
    interrupts.reason = "SIGINT"
    ray.log = "one\n"
    with pytest.raises(InterruptedRunError):
        watch(record, Reachable(ray), told, interrupts)
    assert ray.stopped == 1


@pytest.mark.parametrize("act", ["stopping", "over"])
def test_a_run_that_ends_meanwhile_is_told_as_that(
    record: RunRecord, ray: FakeRay, told: list[Event], act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.away = True
    if act == "stopping":
        record.ledger.intent("down", reason="asked")
    else:
        monkeypatch.setattr(type(record), "expires_at", datetime.now(UTC))
    with pytest.raises(JobFailedError, match=r"taken down by another dhctl|the lease ended"):
        watch(record, Reachable(ray), told)


def test_a_way_that_carries_no_connection_is_given_up(
    record: RunRecord, ray: FakeRay, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(submission: str) -> AsyncIterator[str]:
        raise RuntimeError("no web sockets here")
        yield ""

    ray.log = "one\n"
    monkeypatch.setattr(ray, "tail_job_logs", breaks, raising=False)
    monkeypatch.setattr(job_stream, "RAYS_OWN_LINES_S", 0.1)
    with pytest.raises(ClusterError, match="no web sockets here"):
        watch(record, Reachable(ray), told)
    assert sum("Ray is lost from sight" in str(event) for event in told) == job_watch.LOSSES
