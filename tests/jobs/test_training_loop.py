"""The training loop without Ray: it learns, resumes as if nothing had been, and ends with a sentence where it must."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError
from dhctl.ray_jobs.storage import Store, open_store
from dhctl.ray_jobs.training import checkpoint, losses
from dhctl.ray_jobs.training.loop import train
from dhctl.ray_jobs.training.runner import PlainRunner
from dhctl.ray_jobs.training.settings import TrainingSettings
from dhctl.ray_jobs.training.task import Metrics, Task, Watched
from jobs.sample_task import Sides, settings


def trained(
    store: Store, chosen: TrainingSettings, stop_after: int = 99, task: Task | None = None
) -> tuple[dict[str, Any], list[Metrics]]:
    """State and reports of a training in this store, interrupted after some epochs."""
    seen: list[Metrics] = []

    class InterruptedTrainingError(Exception):
        pass

    def heard(metrics: Metrics) -> None:
        seen.append(metrics)
        if len(seen) == stop_after:
            raise InterruptedTrainingError

    torch.set_num_threads(1)
    try:
        train(PlainRunner(store, torch.device("cpu"), chosen.keep_checkpoints, heard), task or Sides(), chosen)
    except InterruptedTrainingError:
        assert len(seen) == stop_after
    found = checkpoint.newest(store)
    assert found is not None
    return found.state, seen


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "training"))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states have bit-equal weights, optimizer moments and generators."""
    moments = ([s["optimizer"]["state"][k]["exp_avg_sq"] for k in range(4)] for s in (one, other))
    return (
        all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
        and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
        and torch.equal(one["generators"][0]["torch"], other["generators"][0]["torch"])
        and one["generators"][0]["python"] == other["generators"][0]["python"]
    )


def test_it_learns(store: Store) -> None:
    state, seen = trained(store, settings(epochs=5, draws_per_epoch=4))
    assert [metrics["epoch"] for metrics in seen] == [1, 2, 3, 4, 5]
    assert seen[-1]["loss"] < 0.5 * seen[0]["loss"]
    assert seen[-1]["validation_accuracy"] > 0.9
    assert seen[-1]["validated"] == 11
    assert seen[-1]["samples_per_s"] > 0
    assert state["samples_seen"] == 5 * 4 * 20
    assert [name[:11] for name in checkpoint.names(store)] == ["epoch-00005", "epoch-00004"]


@pytest.mark.parametrize("threads", [0, 3])
def test_resuming_equals_not_stopping(tmp_path: Path, threads: int) -> None:
    chosen = settings(loader_threads=threads)
    whole, _ = trained(open_store(str(tmp_path / "whole")), chosen)
    parts = open_store(str(tmp_path / "parts"))
    trained(parts, chosen, stop_after=2)
    torch.manual_seed(77)
    resumed, seen = trained(parts, chosen)
    assert [metrics["epoch"] for metrics in seen] == [3, 4]
    assert same(whole, resumed)
    assert trained(parts, chosen)[1] == []


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, _ = trained(open_store(str(tmp_path / "whole")), settings())
    store = open_store(str(tmp_path / "parts"))
    trained(store, settings(), stop_after=3)
    newest = checkpoint.names(store)[0]
    state = Path(store.path(f"{newest}/state.pt"))
    state.write_bytes(state.read_bytes()[:2000])
    capsys.readouterr()
    resumed, seen = trained(store, settings())
    assert [metrics["epoch"] for metrics in seen] == [3, 4]
    assert same(whole, resumed)
    warned = capsys.readouterr().out
    assert f"{newest} is not used: its content is not what its SHA-256 says" in warned
    assert "training goes on from the one before" in warned


@pytest.mark.parametrize("left", [["state.pt"], ["checkpoint.json"], []])
def test_a_checkpoint_without_one_of_its_files_is_passed_over(store: Store, left: list[str]) -> None:
    trained(store, settings(), stop_after=2)
    newest = Path(store.path(checkpoint.names(store)[0]))
    for file in newest.iterdir():
        if file.name not in left:
            file.unlink()
    _, seen = trained(store, settings())
    assert [metrics["epoch"] for metrics in seen] == [2, 3, 4]


def test_a_checkpoint_of_another_model_is_refused(store: Store) -> None:
    trained(store, settings(), stop_after=1)
    with pytest.raises(
        RefusedInputError, match=r"is of another model: 3 of 4 tensors differ, such as 0.bias \(8 there"
    ):
        trained(store, settings(), task=Sides(hidden=9))


def test_a_checkpoint_of_other_data_is_refused(store: Store) -> None:
    trained(store, settings(), stop_after=1)
    with pytest.raises(RefusedInputError, match="on 23 samples in batches of 5, here are 24"):
        trained(store, settings(), task=Sides(samples=24))


def test_a_checkpoint_of_another_version_is_refused(store: Store) -> None:
    trained(store, settings(), stop_after=1)
    note = Path(store.path(f"{checkpoint.names(store)[0]}/checkpoint.json"))
    note.write_text(json.dumps({**json.loads(note.read_text()), "format": 99}))
    with pytest.raises(RefusedInputError, match="written by another version of dhctl"):
        trained(store, settings())


@pytest.mark.parametrize("every", [1, 3, 50])
def test_a_loss_that_is_no_number_ends_training(store: Store, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHECKED_EVERY", every)
    with pytest.raises(JobStoppedError, match=r"not a finite number in epoch 1, step \d; lower learning_rate"):
        train(PlainRunner(store, torch.device("cpu"), 2, lambda _: None), Sides(poisoned=3), settings())
    assert checkpoint.names(store) == []


def test_it_stops_early_and_keeps_the_best(store: Store) -> None:
    class Waning(Sides):
        """Best in the second epoch."""

        def metrics(self, findings: Any) -> dict[str, float]:
            epochs = len(checkpoint.names(store)) + 1
            return {"validation_accuracy": math.nan if epochs == 4 else 0.5 + 0.2 * (epochs == 2)}

    chosen = settings(epochs=9, patience=3, keep_checkpoints=9)
    state, seen = trained(store, chosen, task=Waning())
    assert len(seen) == 5
    assert (state["best"]["epoch"], state["best"]["value"]) == (2, 0.7)
    second = checkpoint.read(store, checkpoint.names(store)[-2])
    assert all(torch.equal(second["model"][name], tensor) for name, tensor in state["best"]["model"].items())
    assert not torch.equal(state["model"]["0.weight"], state["best"]["model"]["0.weight"])
    assert trained(store, chosen, task=Waning())[1] == []


def test_a_watched_metric_must_exist(store: Store) -> None:
    with pytest.raises(RefusedInputError, match=r"watches dice, but an epoch has epoch, .*validation_accuracy"):
        trained(store, settings(), task=Sides(Watched("dice")))
