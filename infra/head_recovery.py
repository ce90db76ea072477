"""Bringing a head back that was lost: the stack's own way makes what is gone of it, with all that `up` promises."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from dhctl.infra.engine_recovery import settle
from dhctl.infra.errors import DhctlError, HeadLostError, InterruptedRunError
from dhctl.infra.events import PhaseDone, PhaseStarted
from dhctl.infra.home import storage_errors
from dhctl.infra.job_watch import require_living
from dhctl.infra.ledger import Entry
from dhctl.infra.processes import ProcessMark
from dhctl.infra.record import RunRecord
from dhctl.infra.up import Tools, make_cluster, prove

LOCK_WAIT_S = 60.0
AFTER = "after"
"""What a job's intent in the ledger says when it goes on from another one: the number of that."""


def restarts(entries: Iterable[Entry]) -> int:
    """How often a head was brought back for the newest job and those that it goes on from."""
    used = 0
    for entry in entries:
        if (entry.act, entry.phase) == ("job", "intent") and AFTER not in entry.detail:
            used = 0
        used += (entry.act, entry.phase) == ("head.recover", "done")
    return used


def bring_back(record: RunRecord, tools: Tools, lost: HeadLostError) -> None:
    """Returns when a head answers again, alone or with the workers that found it.

    Raises HeadLostError when no head comes, JobFailedError when the run is ended meanwhile, InterruptedRunError.
    """
    started = time.monotonic()
    tools.report(PhaseStarted("head", lost.what))
    with record.lock(LOCK_WAIT_S, "bring its head back"), storage_errors(record.folder):
        require_living(record)
        client = ProcessMark.me().to_dict()
        try:
            with record.ledger.act("head.recover", lost=lost.what, client=client) as outcome:
                outcome["how"] = _recover(record, tools, lost)
        except InterruptedRunError:
            raise
        except DhctlError as error:
            tools.interrupts.check()  # what failed because it was interrupted is told as interrupted
            told = f"{lost.what}; no other one came: {error.what}"
            raise HeadLostError(told, error.next_step or f"`dhctl down {record.run_id}` ends what is left") from error
    tools.report(PhaseDone("head", time.monotonic() - started, str(outcome["how"])))


def _recover(record: RunRecord, tools: Tools, lost: HeadLostError) -> str:
    """Can be repeated after it was broken off at any point. How it came back, for the ledger."""
    if lost.answers:
        prove(record, tools)
        return "back"
    settle(record)
    tools.target.clear_head(record, tools.report)
    tools.interrupts.check()
    make_cluster(record, tools, lambda engine, program: engine.renew(program))
    return "replaced"


def look_for_head(record: RunRecord, target: Any) -> str:
    """Why the head is gone; "" while it is there, or where the place cannot be asked."""
    try:
        return str(target.lost_head(record))
    except DhctlError:
        return ""
