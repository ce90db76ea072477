"""What tests of losses share on every target: how far jobs/steps.py is, and what it must have done in the end."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dhctl.infra.local import nodes
from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.record import RunRecord

EPOCHS, STEPS = 16, 5
"""As tests/e2e/jobs/steps.py has them."""


QUIET_S = 3.0
"""After a worker's end the other one may end the step in which it was."""


def kill_node(record: RunRecord, kind: str) -> None:
    """A local node's supervisor and all that descends from it, at once, as a machine that fails does."""
    folder = RunFolder(scratch_root(record.spec), record.run_id)
    node = next(n for n in nodes.load_nodes(folder).values() if n.tags["ray-node-type"] == kind)
    for pid in [node.process.pid, *nodes.session_of(node.process)]:
        os.kill(pid, signal.SIGKILL)


def noted_steps(record: RunRecord) -> list[dict[str, Any]]:
    """The steps that jobs/noted.py noted: `at` (epoch seconds) and `draws`."""
    return [json.loads(path.read_text()) for path in (Path(record.output) / "draws").iterdir()]


def resumed_s(steps: Iterable[dict[str, Any]], killed_at: float) -> float:
    """Seconds from a worker's end to the next step of training."""
    return float(min(step["at"] for step in steps if step["at"] > killed_at + QUIET_S) - killed_at)


def rows(record: RunRecord, number: int) -> list[dict[str, Any]]:
    """The lines of a job's metrics.jsonl."""
    return [json.loads(line) for line in (record.job_dir(number) / "metrics.jsonl").read_text().splitlines()]


def epochs(record: RunRecord, number: int) -> list[int]:
    """Those that the job told, in its order."""
    return [row["step"] for row in rows(record, number)]


def at_epoch(epoch: int) -> Callable[[RunRecord], bool]:
    """Whether the run's first job told so many."""

    def reached(record: RunRecord) -> bool:
        metrics = record.job_dir(1) / "metrics.jsonl"
        return metrics.exists() and len(metrics.read_text().splitlines()) >= epoch

    return reached


def result(record: RunRecord, number: int) -> dict[str, Any]:
    """A job's result.json."""
    found: dict[str, Any] = json.loads((record.job_dir(number) / "result.json").read_text())
    return found


def acts(record: RunRecord) -> list[tuple[str, str]]:
    """What the ledger tells of jobs and heads."""
    return [(e.act, e.phase) for e in record.ledger.entries() if e.act in ("job", "head.recover")]


def assert_went_on(record: RunRecord, noted: Iterable[str], after: int, broken_off: int = 0) -> None:
    """The second job went on from the first one's checkpoint: no step was left out, one epoch at most was done again.

    `noted`: names of the objects that the job wrote below `steps/`; `after`: the epoch that was seen before the loss;
    `broken_off`: how many clients were killed while they brought another head.
    """
    lost, ended = result(record, 1), result(record, 2)
    assert (lost["status"], ended["status"]) == ("LOST", "SUCCEEDED")
    assert ended["result"]["began_after"] >= after
    assert epochs(record, 2) == list(range(1, EPOCHS + 1)), "the newest job's metrics are whole"
    assert_counted(noted)
    lost_once = [("job", "intent"), ("job", "failed"), *[("head.recover", "intent")] * (1 + broken_off)]
    assert acts(record) == [*lost_once, ("head.recover", "done"), ("job", "intent"), ("job", "done")]


def assert_counted(noted: Iterable[str]) -> None:
    """Every step was done, and twice only what lay behind one checkpoint."""
    done = Counter(name.rpartition("-")[0] for name in noted)
    assert set(done) == {f"{epoch}-{step}" for epoch in range(1, EPOCHS + 1) for step in range(STEPS)}
    again = {step.partition("-")[0] for step, times in done.items() if times > 1}
    assert len(again) <= 1, "done twice is what lies behind the last checkpoint, and no more"
