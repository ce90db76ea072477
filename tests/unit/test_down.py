"""Taking a run down: every step is tried, every failure is kept, and what is really left decides."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable

import psutil
import pytest
from pulumi.automation import CommandError, CommandResult

from dhctl.infra import down, job_recovery
from dhctl.infra.down import TakeDown, take_down
from dhctl.infra.engine_recovery import backend_folder
from dhctl.infra.errors import EngineError, RunBusyError
from dhctl.infra.events import Event, Noted, PhaseDone, PhaseStarted, Warned
from dhctl.infra.processes import ProcessMark
from dhctl.infra.receipt import Leftover, Receipt
from dhctl.infra.record import RunRecord, RunState
from unit.conftest import Start
from unit.fakes import FakeEngine, FakeTarget, hold_lock, resource, write_checkpoint, write_lock

SERVER = Leftover("server", "node-1", "delete node-1")
STEPS = ["collect", "release_nodes", "sweep"]


def failed(record: RunRecord) -> dict[str, str]:
    return {e.act: e.detail["reason"] for e in record.ledger.entries() if e.phase == "failed"}


def work(record: RunRecord, target: FakeTarget, told: list[Event], engine: FakeEngine | None = None) -> Receipt:
    return TakeDown(record, target, lambda run: engine or FakeEngine(), told.append).run("asked")  # type: ignore[arg-type, return-value]


def test_a_run_that_made_nothing_is_clean(record: RunRecord, told: list[Event]) -> None:
    receipt = work(record, FakeTarget(), told)
    assert receipt.clean
    assert (receipt.run_id, receipt.name, receipt.target, receipt.reason) == (record.run_id, "trial", "local", "asked")
    assert [c.place for c in receipt.checks] == [
        "the place",
        "Pulumi stack",
        "Pulumi pending operations",
        "Pulumi locks",
        "Pulumi processes",
        "lease keeper",
    ]
    assert record.state() is RunState.CLEAN
    assert Receipt.from_dict(json.loads(record.receipt_path.read_text())) == receipt
    assert isinstance(told[0], PhaseStarted)
    assert isinstance(told[-1], PhaseDone)


def test_the_steps_come_in_the_order_of_what_hangs_on_what(record: RunRecord, told: list[Event]) -> None:
    write_checkpoint(backend_folder(record), record.run_id, [resource(record.run_id, "dhctl:index:Head", "head")])
    target, engine = FakeTarget(), FakeEngine()
    work(record, target, told, engine)
    assert [c for c in target.calls if c != "inventory"] == STEPS
    assert target.calls[-1] == "inventory"
    assert engine.calls == ["destroy", "refresh"]


@pytest.mark.parametrize("stopped", [True, False])
def test_nodes_go_beside_the_engines_start_only_where_nothing_new_can_start(
    record: RunRecord, told: list[Event], monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    write_checkpoint(backend_folder(record), record.run_id, [resource(record.run_id, "dhctl:index:Head", "head")])
    record.ledger.note("autoscaler.stop", "done")  # of a head that was lost
    record.ledger.note("stack.up", "done")  # of the one that took its place
    target, destroying, released = FakeTarget(), threading.Event(), []
    if stopped:
        monkeypatch.setattr(target, "collect", lambda _: record.ledger.note("autoscaler.stop", "done"))
    engine = FakeEngine()
    monkeypatch.setattr(engine, "destroy", lambda *_: destroying.set(), raising=False)
    monkeypatch.setattr(
        target, "release_nodes", lambda *_: released.append(destroying.wait(10 if stopped else 0.2)), raising=True
    )
    assert work(record, target, told, engine) is not None
    assert released == [stopped]
    assert destroying.is_set()


@pytest.mark.parametrize("step", ["collect", "release_nodes", "sweep"])
@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("odd"), EngineError("engine")])
def test_a_step_that_fails_does_not_keep_the_next_from_running(
    record: RunRecord, told: list[Event], step: str, error: Exception
) -> None:
    target = FakeTarget(fails={step: error})
    receipt = work(record, target, told)
    assert [c for c in target.calls if c != "inventory"] == STEPS
    assert target.calls[-1] == "inventory"
    assert list(failed(record).values()) == [f"{type(error).__name__}: {error}"]
    assert [e.text for e in told if isinstance(e, Warned)] == [f"{next(iter(failed(record)))}: {error}"]
    assert receipt.clean  # the look afterwards decides, not the failure


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("torn JSON"), id="ValueError"),
        pytest.param(KeyError("tags"), id="KeyError"),
        pytest.param(psutil.NoSuchProcess(7), id="psutil"),
        pytest.param(subprocess.TimeoutExpired("pulumi", 5), id="subprocess"),
        pytest.param(CommandError(CommandResult("", "no stack", 255)), id="pulumi"),
    ],
)
def test_whatever_a_step_raises_the_teardown_goes_on(record: RunRecord, told: list[Event], error: Exception) -> None:
    target = FakeTarget(fails={"release_nodes": error})
    assert work(record, target, told).clean
    assert [c for c in target.calls if c != "inventory"] == STEPS
    assert target.calls[-1] == "inventory"


def test_a_look_that_fails_is_unknown(record: RunRecord, told: list[Event]) -> None:
    receipt = work(record, FakeTarget(fails={"inventory": OSError("the place does not answer")}), told)
    assert not receipt.clean
    assert [c.unknown for c in receipt.checks if c.unknown] == ["OSError: the place does not answer"]
    assert {c.place for c in receipt.checks} >= {"Pulumi stack", "lease keeper"}


def test_an_engine_that_fails_leaves_what_the_state_holds(record: RunRecord, told: list[Event]) -> None:
    write_checkpoint(backend_folder(record), record.run_id, [resource(record.run_id, "dhctl:index:Head", "head")])
    broken = EngineError("no engine")
    engine = FakeEngine(fails=dict.fromkeys(("destroy", "refresh"), broken))
    target = FakeTarget()
    receipt = work(record, target, told, engine)
    assert [c for c in target.calls if c != "inventory"] == STEPS
    assert target.calls[-1] == "inventory"
    assert set(failed(record)) == {"stack.destroy", "stack.forget"}
    assert [(x.kind, x.name) for x in receipt.leftovers] == [("stack resource", "head (Head)")]
    assert record.state() is RunState.LEFTOVERS


def test_what_is_left_is_in_the_receipt_and_a_second_down_ends_it(record: RunRecord, told: list[Event]) -> None:
    target = FakeTarget(left=(SERVER,))
    first = work(record, target, told)
    assert first.leftovers == [SERVER]
    assert record.state() is RunState.LEFTOVERS
    target.left = ()
    assert work(record, target, told).clean
    assert record.state() is RunState.CLEAN


def test_down_on_a_run_that_is_gone_looks_again_and_succeeds(record: RunRecord, told: list[Event]) -> None:
    engine_of = lambda run: FakeEngine()  # noqa: E731
    first = take_down(record, FakeTarget(), engine_of, told.append, "job failed")  # type: ignore[arg-type, return-value]
    again = take_down(record, FakeTarget(), engine_of, told.append, "asked by the user")  # type: ignore[arg-type, return-value]
    assert first.clean
    assert again.clean
    assert again.reason == "job failed"
    assert again.created == first.created


def test_a_receipt_that_cannot_be_stored_is_still_shown(record: RunRecord, told: list[Event]) -> None:
    record.receipt_path.mkdir()  # nothing can take a folder's place
    receipt = work(record, FakeTarget(), told)
    assert receipt.clean
    assert [e.text for e in told if isinstance(e, Warned)] == [
        "the receipt could not be stored (Is a directory); it is only shown"
    ]
    assert record.state() is RunState.CLEAN


def test_locks_and_pending_operations_are_left(record: RunRecord, told: list[Event]) -> None:
    backend = backend_folder(record)
    head = resource(record.run_id, "dhctl:index:Head", "head")
    write_checkpoint(backend, record.run_id, [], [{"type": "creating", "resource": head}])
    write_lock(backend, record.run_id, 7, "elsewhere")
    receipt = work(record, FakeTarget(), told)
    assert [(x.kind, x.name.split(" ", 1)[1]) for x in receipt.leftovers] == [
        ("pending operation", "head (Head)"),
        ("lock", "(pid 7 on elsewhere)"),
    ]
    assert {x.remove_with for x in receipt.leftovers} == {f"dhctl down {record.run_id}"}


def test_a_state_that_cannot_be_read_is_unknown(record: RunRecord, told: list[Event]) -> None:
    write_checkpoint(backend_folder(record), record.run_id, []).write_text("{")
    receipt = work(record, FakeTarget(), told)
    assert {c.place for c in receipt.checks if c.state == "unknown"} == {"Pulumi stack", "Pulumi pending operations"}
    assert not receipt.clean


def test_what_the_run_made_is_counted(record: RunRecord, told: list[Event]) -> None:
    for act in ("folder.create", "token.create", "head.start", "node.start", "node.start"):
        record.ledger.done(act)
    record.ledger.write("node.start", "failed")
    created = work(record, FakeTarget(), told).created
    assert created == {"run folders": 1, "tokens": 1, "heads": 1, "workers": 2}


def test_what_pulumi_made_is_counted_by_kind(record: RunRecord, told: list[Event]) -> None:
    for name in ("head-security-group", "members-security-group", "network"):
        kind = "Network" if name == "network" else "SecGroup"
        record.ledger.intent("resource.create", kind=kind, name=name)
        record.ledger.done("resource.create", kind=kind, name=name)
    record.ledger.intent("resource.create", kind="Instance", name="head")
    assert work(record, FakeTarget(), told).created == {"SecGroup": 2, "Network": 1}


def test_a_living_lease_keeper_is_ended_by_a_clean_down(record: RunRecord, told: list[Event], start: Start) -> None:
    keeper = start("sleep", "60")
    mark = ProcessMark.of(keeper.pid)
    assert mark
    record.ledger.done("lease.start", process=mark.to_dict())
    assert work(record, FakeTarget(), told).clean
    assert keeper.wait(5) != 0


def test_the_lease_keeper_lives_on_while_something_is_left(record: RunRecord, told: list[Event], start: Start) -> None:
    keeper = start("sleep", "60")
    mark = ProcessMark.of(keeper.pid)
    assert mark
    record.ledger.done("lease.start", process=mark.to_dict())
    assert not work(record, FakeTarget(left=(SERVER,)), told).clean
    assert mark.alive()


@pytest.fixture
def hold(record: RunRecord, start: Start) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts another process that holds the run until it is told to stop."""

    return lambda: hold_lock(record, start)


def test_two_downs_at_once_wait_for_each_other(
    record: RunRecord,
    told: list[Event],
    hold: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(down, "LOCK_TRY_S", 0.05)
    holder = hold()
    released: list[float] = []

    def release() -> None:
        time.sleep(0.3)
        released.append(time.monotonic())
        holder.kill()

    threading.Thread(target=release).start()
    receipt = take_down(record, FakeTarget(), lambda run: FakeEngine(), told.append, "asked")  # type: ignore[arg-type, return-value]
    assert receipt.clean
    assert released
    assert Noted(f"another dhctl is working on {record.run_id}; waiting for it") in told


def test_a_run_that_stays_busy_is_told_as_busy(
    record: RunRecord,
    told: list[Event],
    hold: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(down, "LOCK_TRY_S", 0.05)
    monkeypatch.setattr(down, "LOCK_WAIT_S", 0.1)
    hold()
    target = FakeTarget()
    with pytest.raises(RunBusyError):
        take_down(record, target, lambda run: FakeEngine(), told.append, "asked")  # type: ignore[arg-type, return-value]
    assert target.calls == []
    assert record.state() is RunState.STARTING


def test_a_client_that_replaces_the_head_is_asked_to_stop(
    record: RunRecord, told: list[Event], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "LOCK_TRY_S", 0.0)
    client = hold_lock(record, start)
    record.ledger.done("up")
    record.ledger.intent("head.recover", lost="gone", client=ProcessMark.of(client.pid).to_dict())  # type: ignore[union-attr]
    assert record.state() is RunState.RECOVERING
    take_down(record, FakeTarget(), lambda run: FakeEngine(), told.append, "asked")  # type: ignore[arg-type, return-value]
    assert Noted(f"asked the dhctl that brings {record.run_id} up to stop (pid {client.pid})") in told


def test_a_client_that_brings_the_run_up_is_asked_to_stop(
    record: RunRecord,
    told: list[Event],
    hold: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(down, "LOCK_TRY_S", 0.05)
    client = hold()
    mark = ProcessMark.of(client.pid)
    assert mark
    record.ledger.intent("run", **{**record.opened().detail, "client": mark.to_dict()})
    receipt = take_down(record, FakeTarget(), lambda run: FakeEngine(), told.append, "asked")  # type: ignore[arg-type, return-value]
    assert receipt.clean
    assert client.wait(5) == -15
    assert Noted(f"asked the dhctl that brings {record.run_id} up to stop (pid {client.pid})") in told


def test_a_run_killed_before_its_first_line_can_be_taken_down(record: RunRecord, told: list[Event]) -> None:
    record.ledger.path.write_text("")
    assert work(record, FakeTarget(), told).clean


def test_a_dead_clients_job_is_rebuilt_from_the_drivers_log(record: RunRecord, told: list[Event]) -> None:
    record.ledger.intent("job", number=1, submission="s-1")
    log = record.logs_dir / "job-driver-s-1.log"
    log.parent.mkdir()
    log.write_bytes(
        b'hello\n@dhctl {"type":"progress","stage":"train","step":1,"of":2,"metrics":{"loss":0.5}}\n\xff broken\n'
        b'@dhctl {"type":"result","result":{"metric":0.9}}\n'
    )
    work(record, FakeTarget(), told)
    folder = record.job_dir(1)
    assert (folder / "driver.log").read_text().splitlines()[0] == "hello"
    assert json.loads((folder / "metrics.jsonl").read_text())["loss"] == 0.5
    saved = json.loads((folder / "result.json").read_text())
    assert (saved["status"], saved["exit_code"], saved["result"]) == ("STOPPED", None, {"metric": 0.9})


def test_a_job_that_the_client_saw_to_its_end_is_left_alone(record: RunRecord, told: list[Event]) -> None:
    record.ledger.intent("job", number=1, submission="s-1")
    record.ledger.done("job", number=1)
    log = record.logs_dir / "job-driver-s-1.log"
    log.parent.mkdir()
    log.write_text("hello\n")
    job_recovery.recover_journal(record, log, told.append)
    assert told == []
    assert not record.job_dir(1).exists()


def test_a_rebuilt_result_stays_as_it_is(record: RunRecord, told: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    record.ledger.intent("job", number=1, submission="s-1")
    log = record.logs_dir / "job-driver-s-1.log"
    log.parent.mkdir()
    log.write_text("hello\n")
    work(record, FakeTarget(), told)
    first = (record.job_dir(1) / "result.json").read_text()
    time.sleep(0.15)
    work(record, FakeTarget(), told)
    assert (record.job_dir(1) / "result.json").read_text() == first
