"""metrics.jsonl through resumes."""

from __future__ import annotations

import json
from pathlib import Path

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
