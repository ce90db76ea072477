"""Taking a run down, from its ledger alone: every step can be repeated, every failure is kept, the receipt decides."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dhctl.infra import job_recovery, lease
from dhctl.infra.early import begin
from dhctl.infra.engine_recovery import backend_folder, forget, living_processes, settle, stack_state
from dhctl.infra.errors import RunBusyError
from dhctl.infra.events import Noted, PhaseDone, PhaseStarted, Report, Warned
from dhctl.infra.head_ledger import autoscaler_is_stopped
from dhctl.infra.ledger import Entry, last
from dhctl.infra.processes import ProcessMark
from dhctl.infra.receipt import Check, Leftover, Receipt, now
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.target import Target

if TYPE_CHECKING:
    from dhctl.infra.engine import Engine

EngineOf = Callable[[RunRecord], "Engine"]
"""Finds a run's engine when one is needed; importing Pulumi waits until then."""

LOCK_TRY_S = 2.0
LOCK_WAIT_S = 600.0


def take_down(record: RunRecord, target: Target, engine_of: EngineOf, report: Report, reason: str) -> Receipt:
    """Ends a run and proves it. On a run that is gone it looks again and succeeds.

    A client that is still bringing the run up is asked to stop first. Raises RunBusyError when another dhctl works on
    the run for longer than ten minutes.
    """
    work = TakeDown(record, target, engine_of, report)
    try:
        with record.lock(LOCK_TRY_S, "take it down"):
            return work.run(reason)
    except RunBusyError:
        _ask_client_to_stop(record, report)
    with record.lock(LOCK_WAIT_S, "take it down"):
        return work.run(reason)


def _ask_client_to_stop(record: RunRecord, report: Report) -> None:
    asked = {RunState.STARTING: record.opened(), RunState.RECOVERING: last(record.ledger.entries(), "head.recover")}
    at_work = asked.get(record.state())
    client = ProcessMark.from_dict(at_work.detail.get("client")) if at_work else None
    if client and client.signal(signal.SIGTERM):
        report(Noted(f"asked the dhctl that brings {record.run_id} up to stop (pid {client.pid})"))
    else:
        report(Noted(f"another dhctl is working on {record.run_id}; waiting for it"))


class TakeDown:
    """One pass over all steps. The caller holds the run's lock."""

    def __init__(self, record: RunRecord, target: Target, engine_of: EngineOf, report: Report) -> None:
        self._record, self._target, self._report = record, target, report
        self._engine: Callable[[], Engine] = lambda: engine_of(record)

    def run(self, reason: str) -> Receipt:
        """All steps, then the receipt, which is stored and closes the ledger."""
        if not stack_state(self._record).empty:
            self._engine = begin(self._engine)  # the first steps wait for the place, the next one needs it
        record, started = self._record, time.monotonic()
        self._report(PhaseStarted("down", reason))
        record.ledger.note("down", "intent", reason=reason)
        for name, step in self._steps():
            self._try(name, step)
        receipt = self._receipt(reason)
        try:
            record.write_json(record.receipt_path, receipt.to_dict())
        except OSError as error:
            self._report(Warned(f"the receipt could not be stored ({error.strerror}); it is only shown"))
        record.ledger.note("down", "done", clean=receipt.clean, left=len(receipt.leftovers))
        self._report(PhaseDone("down", time.monotonic() - started, "nothing is left" if receipt.clean else "not clean"))
        return receipt

    def _receipt(self, reason: str) -> Receipt:
        """Looks everywhere again. The lease keeper goes last, and only when nothing else is left: it tries again."""
        record, target = self._record, self._target
        checks = _guarded(f"target {target.name.value}", lambda: target.inventory(record))
        checks += _guarded("Pulumi stack", lambda: _look_at_stack(record))
        if all(check.state == "none" for check in checks):
            self._try("lease.stop", lambda: lease.stop_keeper(record))
        checks += _guarded("lease keeper", lambda: [lease.look(record)])
        entries, opened = record.ledger.entries(), record.opened()
        return Receipt(
            run_id=record.run_id,
            name=str(opened.detail["name"]),
            target=target.name.value,
            opened_at=opened.at.isoformat(timespec="milliseconds"),
            written_at=now(),
            reason=_first_reason(entries, reason),
            checks=tuple(checks),
            created=_count_created(entries),
            remarks=_remarks(entries),
        )

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """In this order: nothing may start any more, then what hangs on others goes before these.

        Where nothing can start any more once the logs are collected, the nodes are asked to go while the engine starts.
        """
        record, target, report = self._record, self._target, self._report
        return [
            ("engine.settle", lambda: settle(record)),
            ("job.stop", lambda: job_recovery.stop_running(record, target, report)),
            ("logs.collect", self._collect),
            ("stack.destroy", self._end_nodes_and_stack),
            ("sweep", self._sweep),
            ("stack.forget", self._forget),
        ]

    def _try(self, name: str, step: Callable[[], None]) -> None:
        """A step that fails does not keep the next ones from ending what they can; the receipt tells what is left."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it was, what can be ended must be ended
            self._record.ledger.note(name, "failed", reason=f"{type(error).__name__}: {error}"[:2000])
            self._report(Warned(f"{name}: {error}"))

    def _collect(self) -> None:
        self._target.collect(self._record)
        submitted = last(self._record.ledger.entries(), "job", "intent")
        if submitted:
            log = self._record.logs_dir / f"job-driver-{submitted.detail['submission']}.log"
            job_recovery.recover_journal(self._record, log, self._report)

    def _end_nodes_and_stack(self) -> None:
        record, target = self._record, self._target
        with ThreadPoolExecutor(1) as beside:
            released = beside.submit(self._try, "nodes.release", lambda: target.release_nodes(record, self._report))
            if not autoscaler_is_stopped(record.ledger.entries()):
                released.result()
            self._destroy()

    def _destroy(self) -> None:
        if not stack_state(self._record).empty:
            self._engine().destroy(lambda: self._try("sweep", self._sweep))

    def _sweep(self) -> None:
        self._target.sweep(self._record, self._report)

    def _forget(self) -> None:
        """After the sweep: creates that never ended and resources that a failed destroy left are looked at again."""
        if not stack_state(self._record).empty:
            settle(self._record)
            self._engine().refresh()
        forget(self._record)


def _guarded(place: str, look: Callable[[], list[Check]]) -> list[Check]:
    """A look that is not possible is a check that says so."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever it was, the place is unknown
        return [Check(place, "everything of this run", (), f"{type(error).__name__}: {error}"[:500])]


def _first_reason(entries: list[Entry], reason: str) -> str:
    """Why the run ended: a later look at a run that is gone does not change that."""
    for entry in entries:
        if entry.act == "down" and entry.phase == "intent":
            return str(entry.detail["reason"])
    return reason


def _count_created(entries: list[Entry]) -> dict[str, int]:
    """By kind; what the ledger tells of no kind at all is not there."""
    acts = {"folder.create": "run folders", "token.create": "tokens", "head.start": "heads", "node.start": "workers"}
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.phase == "done" and entry.act in acts:
            counts[acts[entry.act]] += 1
        elif entry.phase == "done" and entry.act == "resource.create":
            counts[str(entry.detail["kind"])] += 1
    return dict(counts)


def _remarks(entries: list[Entry]) -> tuple[str, ...]:
    """What a stranger met who tried the cluster's doors, where that was tried."""
    probed = last(entries, "probe.network", "note")
    words = str(probed.detail.get("words", "")) if probed else ""
    return (words,) if words else ()


def _look_at_stack(record: RunRecord) -> list[Check]:
    state, folder = stack_state(record), backend_folder(record)
    again = f"dhctl down {record.run_id}"
    return [
        Check(
            "Pulumi stack",
            "resources in the state",
            tuple(Leftover("stack resource", name, again) for name in state.resources),
            state.unreadable,
        ),
        Check(
            "Pulumi pending operations",
            "creates that did not end",
            tuple(Leftover("pending operation", name, again) for name in state.pending),
            state.unreadable,
        ),
        Check(
            "Pulumi locks",
            f"lock files in {folder.name}/",
            tuple(Leftover("lock", f"{lock.path.name} ({lock.holder})", again) for lock in state.locks),
        ),
        Check(
            "Pulumi processes",
            "engines of this run and their plugins on this machine",
            tuple(Leftover("process", f"pid {mark.pid}", again) for mark in living_processes(record)),
        ),
    ]
