"""A head that was lost is brought back by the stack's own way, as often as the spec allows, all of it in the ledger."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from dhctl.infra import head_recovery, up
from dhctl.infra.engine_recovery import backend_folder
from dhctl.infra.errors import (
    ClusterError,
    EngineError,
    HeadLostError,
    InterruptedRunError,
    JobFailedError,
    NotUpError,
    RunBusyError,
)
from dhctl.infra.events import Event
from dhctl.infra.home import Home
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.job import attach, train
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.target import Program, StackOutputs
from dhctl.infra.up import Tools
from unit.conftest import Start
from unit.fakes import FakeTarget, hold_lock, make_record, write_lock

LOST = HeadLostError("the head is lost: pod head is gone")


class RenewingEngine:
    """Makes again what is gone."""

    def __init__(self, calls: list[str], error: Exception | None = None) -> None:
        self.calls, self.error = calls, error

    def renew(self, program: Program) -> StackOutputs:
        self.calls.append("renew")
        if self.error:
            raise self.error
        return StackOutputs({"address": "10.0.0.9"})


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def tools(record: RunRecord, target: FakeTarget, told: list[Event], monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setattr(up, "prove", lambda record, tools: target.calls.append("prove"))
    monkeypatch.setattr(head_recovery, "prove", lambda record, tools: target.calls.append("prove"))
    record.ledger.done("up")
    record.ledger.intent("job", number=1, submission="s-1", head="head-1")
    return Tools(record.home, target, lambda run: RenewingEngine(target.calls), told.append, Interrupts())  # type: ignore[arg-type, return-value]


def acts(record: RunRecord, *wanted: str) -> list[tuple[str, str]]:
    return [(e.act, e.phase) for e in record.ledger.entries() if e.act in wanted]


def test_what_is_left_goes_before_the_next_head_is_made(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    head_recovery.bring_back(record, tools, LOST)
    assert target.calls == ["clear_head", "renew", "start", "prove"]
    assert acts(record, "head.recover", "stack.up") == [
        ("head.recover", "intent"),
        ("stack.up", "intent"),
        ("stack.up", "done"),
        ("head.recover", "done"),
    ]
    begun, ended = (e for e in record.ledger.entries() if e.act == "head.recover")
    assert begun.detail["lost"] == LOST.what
    assert begun.detail["client"]["pid"]
    assert ended.detail["how"] == "replaced"
    assert record.state() is RunState.UP


def test_a_head_that_came_back_by_itself_is_only_proved(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    head_recovery.bring_back(record, tools, HeadLostError("started anew", answers=True))
    assert target.calls == ["prove"]
    assert record.ledger.entries()[-1].detail["how"] == "back"


def test_an_engine_that_died_at_it_is_settled_first(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    lock = write_lock(backend_folder(record), record.run_id, 2**22 - 1, socket.gethostname())
    head_recovery.bring_back(record, tools, LOST)
    assert not lock.exists()
    assert target.calls[-1] == "prove"


class DyingTarget(FakeTarget):
    """Each of its heads is dead when the job is to be sent."""

    def connect(self, record: RunRecord) -> AbstractContextManager[Connection]:
        raise ClusterError("nobody answers")


def test_no_more_heads_than_the_spec_allows_each_time_that_a_user_trains(
    record: RunRecord, tools: Tools, told: list[Event]
) -> None:
    target = DyingTarget()
    target.lost = "pod head is gone"
    dying = replace(tools, target=target)
    record.ledger.done("job", number=1)
    for trained in (1, 2):
        with pytest.raises(HeadLostError, match=r"job\.head_restarts is 1; .*--resume") as raised:
            train(record, dying)
        assert raised.value.exit_code == 4
        assert target.calls.count("clear_head") == trained


def test_who_attaches_counts_the_heads_that_were_brought_back_before(record: RunRecord) -> None:
    for after in ({}, {"after": 1}, {"after": 2}):
        record.ledger.intent("job", number=1, submission="s", **after)
        record.ledger.intent("head.recover", lost="gone")
        record.ledger.done("head.recover", how="replaced")
    record.ledger.intent("head.recover", lost="gone")  # broken off: it is begun again
    assert head_recovery.restarts(record.ledger.entries()) == 3
    record.ledger.intent("job", number=4, submission="s")
    assert head_recovery.restarts(record.ledger.entries()) == 0


def test_a_head_that_cannot_come_back_is_a_clear_end(
    record: RunRecord, tools: Tools, target: FakeTarget, told: list[Event]
) -> None:
    error = EngineError("Pulumi failed: quota exceeded", "ask for quota")
    broken = Tools(record.home, target, lambda run: RenewingEngine([], error), told.append, Interrupts())  # type: ignore[arg-type, return-value]
    with pytest.raises(HeadLostError, match="no other one came: Pulumi failed: quota exceeded; ask for quota"):
        head_recovery.bring_back(record, broken, LOST)
    assert record.state() is RunState.FAILED


def test_a_stop_on_the_way_is_told_as_a_stop(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    tools.interrupts.reason = "SIGINT"
    with pytest.raises(InterruptedRunError):
        head_recovery.bring_back(record, tools, LOST)
    assert target.calls == ["clear_head"]


def test_a_run_that_is_taken_down_gets_no_head(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    record.ledger.intent("down", reason="asked")
    with pytest.raises(JobFailedError, match="taken down by another dhctl"):
        head_recovery.bring_back(record, tools, LOST)
    assert target.calls == []


def test_a_run_without_a_job_cannot_be_attached_to(home: Home, tools: Tools) -> None:
    fresh = make_record(home)
    fresh.ledger.done("up")
    with pytest.raises(NotUpError, match=f"had no job yet; start it with `dhctl train {fresh.run_id}`"):
        attach(fresh, tools)


@pytest.mark.parametrize("verb", [attach, train])
def test_two_do_not_follow_one_job(
    record: RunRecord, tools: Tools, start: Start, verb: Callable[[RunRecord, Tools], Any]
) -> None:
    hold_lock(record, start, "job.lock")
    with pytest.raises(RunBusyError, match="another dhctl follows the job"):
        verb(record, tools)


def test_a_job_that_has_ended_is_told_from_the_record(record: RunRecord, tools: Tools, told: list[Event]) -> None:
    folder = record.job_dir(1)
    record.ledger.done("job", number=1, status="FAILED", exit_code=7)
    record.write_json(
        folder / "result.json",
        {"status": "FAILED", "exit_code": 7, "seconds": 5.0, "time_to_model_s": 9.0, "result": None},
    )
    (folder / "driver.log").write_text("one\nValueError: no slides\n")
    outcome = attach(record, tools)
    with pytest.raises(JobFailedError, match="the job FAILED with exit code 7: ValueError: no slides"):
        outcome.require_success(record)
    assert any("job 1 has ended already" in str(event) for event in told)
    assert json.loads((folder / "result.json").read_text())["exit_code"] == 7


def test_a_job_whose_end_nobody_saw_is_told_as_that(record: RunRecord, tools: Tools) -> None:
    record.ledger.done("down", clean=True)
    with pytest.raises(NotUpError, match=r"how job 1 .* ended was not recorded"):
        attach(record, tools)


def test_of_several_jobs_the_newest_is_taken_up(record: RunRecord, tools: Tools, told: list[Event]) -> None:
    record.ledger.done("job", number=1)
    record.ledger.intent("job", number=2, submission="s-2")
    record.ledger.done("job", number=2)
    with pytest.raises(NotUpError, match="job 2"):
        attach(record, tools)
    assert any("job 2 is the newest one" in str(event) for event in told)


def test_a_recovery_that_was_broken_off_is_begun_again(record: RunRecord, tools: Tools, target: FakeTarget) -> None:
    """By who attaches; `train` names the way."""
    record.ledger.intent("head.recover", lost=LOST.what)
    with pytest.raises(NotUpError, match=f"not up but recovering; `dhctl train --attach {record.run_id}`"):
        train(record, tools)
    with pytest.raises(NotUpError):  # the fake place has no Ray to submit to
        attach(record, tools)
    assert target.calls == ["clear_head", "renew", "start", "prove"]
