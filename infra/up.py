"""Bringing a run up: ledger, lease, stack, and the proof that Ray answers its owner and nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from dhctl.infra import lease
from dhctl.infra.down import TakeDown
from dhctl.infra.engine_recovery import backend_folder
from dhctl.infra.engine_state import engine_versions
from dhctl.infra.errors import ClusterError, EngineError
from dhctl.infra.events import Noted, PhaseDone, PhaseStarted, Report, Warned
from dhctl.infra.home import Home, storage_errors
from dhctl.infra.interrupts import Interrupts, StopNow
from dhctl.infra.processes import ProcessMark
from dhctl.infra.ray_api import Connection, alive_nodes
from dhctl.infra.record import RunRecord, open_record
from dhctl.infra.refusal import require_refusal
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.target import Program, StackOutputs, Target

if TYPE_CHECKING:
    from dhctl.infra.engine import Engine

KEPT_WORKERS_S = {TargetName.LOCAL: 120.0, TargetName.OPENSTACK: 1200.0, TargetName.KUBERNETES: 900.0}
"""How long workers that are always kept may take to join: on a cloud they may have to install Ray."""

GIVE_UP_S = 120.0
"""The wait from the first trouble with them that the target tells: the autoscaler tries again by itself for so long."""

KEPT_LOOK_S = {TargetName.LOCAL: 0.5, TargetName.OPENSTACK: 3.0, TargetName.KUBERNETES: 2.0}
"""Between two looks: on a cloud each is a call of its API and a login on the head."""


@dataclass(frozen=True)
class Tools:
    """What every step of a run works with; the engine is found when it is first needed."""

    home: Home
    target: Target
    engine_of: Callable[[RunRecord], Engine]
    report: Report
    interrupts: Interrupts


Make = Callable[["Engine", Program], StackOutputs]
"""How the engine makes the stack: anew, or what is gone of it."""


def bring_up(spec: RunSpec, tools: Tools, given: RunSpec | None = None) -> RunRecord:
    """A run that is up. When anything fails or a stop is asked for, everything is taken down again before it raises.

    `given` is the spec before admission, which the record keeps beside it.
    """
    started = time.monotonic()
    record = open_record(tools.home, spec, version("dhctl"), ProcessMark.me().to_dict(), given)
    tools.report(PhaseStarted("up", f"{record.run_id} on {spec.target.value}"))
    tools.interrupts.subject = record.run_id
    with record.lock(0, "bring it up"):
        try:
            with storage_errors(record.folder):
                _make(record, tools)
        except StopNow:
            raise
        except BaseException as error:
            tools.report(Noted(f"not up: {error}"))
            receipt = TakeDown(record, tools.target, tools.engine_of, tools.report).run(f"up failed: {error}")
            receipt.require_clean(error)
            tools.interrupts.check()  # what failed because it was interrupted is told as interrupted
            raise
    tools.report(PhaseDone("up", time.monotonic() - started, record.run_id))
    return record


def _make(record: RunRecord, tools: Tools) -> None:
    lease.start_keeper(record)
    with record.ledger.act("up"):
        make_cluster(record, tools, lambda engine, program: engine.up(program))


def make_cluster(record: RunRecord, tools: Tools, make: Make) -> None:
    """Stack, then Ray on its head, then the proof. Raises EngineError, ClusterError, InterruptedRunError."""
    with record.ledger.act("stack.up") as outcome:
        outputs = _make_stack(record, tools, make)
        outcome["outputs"] = dict(outputs.told)
        outcome["engine"] = engine_versions(backend_folder(record))
    tools.interrupts.check()
    tools.target.start(record, outputs, tools.report, tools.interrupts)
    tools.interrupts.check()
    prove(record, tools)


def _make_stack(record: RunRecord, tools: Tools, make: Make) -> StackOutputs:
    """What the engine says of a server that did not come is seldom why: the target is asked."""
    try:
        return make(tools.engine_of(record), tools.target.program(record))
    except EngineError as error:
        reasons = tools.target.troubles(record)
        if not reasons:
            raise
        raise EngineError(f"{error.what}; {'; '.join(reasons)}", error.next_step) from error


def prove(record: RunRecord, tools: Tools) -> None:
    """Ray refuses strangers, here and from outside, and the workers that are always kept have joined.

    Raises ClusterError.
    """
    with tools.target.connect(record) as connection, ThreadPoolExecutor(1) as beside:
        tried_outside = beside.submit(tools.target.probe_outside, record)
        probes = require_refusal(connection)
        record.ledger.write("probe", "note", refused=[p.door for p in probes])
        tools.report(Noted(f"Ray refuses callers without the token: {', '.join(p.door for p in probes)}"))
        outside = tried_outside.result()
        record.ledger.write("probe.outside", "note", found=outside)
        if outside:
            tools.report(Noted(outside))
        _await_kept_workers(record, connection, tools)
    tools.interrupts.check()


def _await_kept_workers(record: RunRecord, connection: Connection, tools: Tools) -> None:
    """Waits while workers may be on their way; what keeps them away is told as it comes, and cuts the wait short."""
    wanted, before = record.spec.workers.min, list[str]()
    end = time.monotonic() + KEPT_WORKERS_S[record.spec.target]
    while (had := _joined(connection)) < wanted:
        tools.interrupts.check()
        new = [told for told in tools.target.troubles(record) if told not in before]
        for told in new:
            tools.report(Warned(f"a worker did not start: {told}"))
        if new and not before:
            end = min(end, time.monotonic() + GIVE_UP_S)
        before += new
        if time.monotonic() > end:
            told = f"{wanted} workers are always kept, but only {had} joined in time"
            raise ClusterError("; ".join([told, *before]), f"their logs are copied to {record.logs_dir}")
        time.sleep(KEPT_LOOK_S[record.spec.target])


def _joined(connection: Connection) -> int:
    """Workers that Ray has; none when it does not answer just now."""
    try:
        return len(alive_nodes(connection)) - 1
    except ClusterError:
        return 0
