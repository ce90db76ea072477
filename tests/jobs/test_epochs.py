"""metrics.jsonl through resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dhctl.ray_jobs.report import Progress, parse
from dhctl.ray_jobs.storage import open_store
from dhctl.ray_jobs.training.epochs import EpochLog


def lines(folder: Path) -> list[tuple[int, float]]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["epoch"], line["loss"]) for line in read]


def test_a_resume_leaves_no_doubles_and_no_gaps(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = EpochLog(store, "train-a", 3)
    first.add({"epoch": 1.0, "loss": 3.0})
    first.add({"epoch": 2.0, "loss": 2.5})
    again = EpochLog(store, "train-a", 3)
    again.add({"epoch": 2.0, "loss": 2.0})
    assert lines(tmp_path) == [(1, 3.0), (2, 2.0)]
    again.settle([{"epoch": 1.0, "loss": 3.0}, {"epoch": 2.0, "loss": 2.0}, {"epoch": 3.0, "loss": 1.0}])
    assert lines(tmp_path) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    EpochLog(store, "train-b", 3).add({"epoch": 1.0, "loss": 9.0})
    assert lines(tmp_path) == [(1, 9.0)]


def test_epochs_that_were_not_told_in_time_are_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [{"epoch": float(epoch), "loss": 9.0 - epoch} for epoch in range(1, 6)]
    log = EpochLog(open_store(str(tmp_path)), "train-a", 5)
    for metrics in (history[1], history[4]):  # the driver before told the first one
        log.add(metrics)
    capsys.readouterr()
    log.settle(history)
    told = [parse(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one.step, one.metrics) for one in told if isinstance(one, Progress)] == [
        (3, {"loss": 6.0}),
        (4, {"loss": 5.0}),
    ]
    assert lines(tmp_path) == [(epoch, 9.0 - epoch) for epoch in range(1, 6)]
