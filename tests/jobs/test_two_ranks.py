"""Two processes train what one process trains, and either goes on where the other was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dhctl.ray_jobs.storage import Store, open_store
from dhctl.ray_jobs.training import checkpoint
from dhctl.ray_jobs.training.loop import train
from dhctl.ray_jobs.training.runner import PlainRunner
from jobs.sample_task import Sides, settings

SCRIPT = Path(__file__).with_name("two_ranks.py")


def with_two(folder: Path, epochs: int) -> None:
    """Train in two processes; a batch of five is dealt as three and two."""
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    meeting = folder.with_suffix(f".{epochs}")
    command = [str(meeting), str(folder), str(epochs)]
    ranks = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), *command], env=env, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors


def with_one(store: Store, epochs: int) -> None:
    runner = PlainRunner(store, torch.device("cpu"), 9, lambda _: None)
    train(runner, Sides(restless=False), settings(epochs=epochs))


def newest(store: Store) -> dict[str, Any]:
    found = checkpoint.newest(store)
    assert found is not None
    return found.state


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    alone, together, mixed = (open_store(str(tmp_path / name)) for name in ("alone", "together", "mixed"))
    with_one(alone, epochs=4)
    with_two(tmp_path / "together", epochs=4)
    for name in checkpoint.names(alone)[1:3]:
        other = next(n for n in checkpoint.names(alone) if n[:11] == name[:11])
        (tmp_path / "mixed").mkdir(exist_ok=True)
        (tmp_path / "mixed" / other).symlink_to(tmp_path / "alone" / other)
    with_two(tmp_path / "mixed", epochs=4)
    one, two, changed = newest(alone), newest(together), newest(mixed)
    assert len(two["generators"]) == 2
    assert [epoch["workers"] for epoch in changed["history"]] == [1, 1, 1, 2]
    for other in (two, changed):
        assert other["samples_seen"] == one["samples_seen"]
        assert all(torch.allclose(one["model"][name], other["model"][name], atol=1e-6) for name in one["model"])
        for mine, theirs in zip(one["history"], other["history"], strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert mine["validation_accuracy"] == theirs["validation_accuracy"]
            assert theirs["validated"] == 11
