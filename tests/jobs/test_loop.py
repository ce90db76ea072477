"""The training loop without Ray: it learns, resumes as if nothing had been, and shares work out evenly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.bags import BagReader, epoch_steps, read_steps
from dhctl.ray_jobs.prostate.loop import learning_rate, train
from dhctl.ray_jobs.prostate.runner import STATE_FILE, Metrics, PlainRunner
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import Bag, ShardNote, write_shard
from dhctl.ray_jobs.storage import Store, open_store
from jobs.sample_slides import quick_settings


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("shards")))
    for slide in range(24):
        rng = np.random.default_rng(slide)
        tiles = rng.integers(90, 110, (6, 32, 32, 3)).astype(np.uint8)
        if slide % 2:
            tiles[:, ::4] += 100
        write_shard(store, note(slide), tiles, "npy")
    return store


def note(slide: int) -> ShardNote:
    return ShardNote(f"k{slide:02d}", f"s{slide:02d}", "", "", 6, 1.0, None, (0.0, 0.0, 0.0))


BAGS = [Bag(note(slide), f"p{slide}", 5 * (slide % 2), "train") for slide in range(24)]


def trained(
    folder: Path, shards: Store, settings: Settings, stop_after: int = 99
) -> tuple[dict[str, torch.Tensor], list[Metrics]]:
    """Weights and reports of a training in this folder, interrupted after some epochs."""
    seen: list[Metrics] = []

    class InterruptedTrainingError(Exception):
        pass

    def heard(metrics: Metrics) -> None:
        seen.append(metrics)
        if len(seen) == stop_after:
            raise InterruptedTrainingError

    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    runner = PlainRunner(folder, torch.device("cpu"), 2, heard)
    try:
        train(runner, BAGS[:18], BAGS[18:], shards, settings)
    except InterruptedTrainingError:
        assert len(seen) == stop_after
    with runner.latest() as found:
        assert found is not None
        return torch.load(found / STATE_FILE, weights_only=True)["model"], seen


def test_it_learns(tmp_path: Path, shards: Store) -> None:
    settings = quick_settings(epochs=3, draws_per_epoch=4, learning_rate=2e-3)
    _, seen = trained(tmp_path / "t", shards, settings)
    assert [metrics["epoch"] for metrics in seen] == [1, 2, 3]
    assert seen[-1]["loss"] < 0.3 * seen[0]["loss"]
    assert seen[-1]["validation_qwk"] > 0.9
    assert seen[-1]["samples_per_s"] > 0
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["epoch-00002", "epoch-00003"]


def test_resuming_equals_not_stopping(tmp_path: Path, shards: Store) -> None:
    settings = quick_settings(epochs=4)
    whole, _ = trained(tmp_path / "whole", shards, settings)
    trained(tmp_path / "parts", shards, settings, stop_after=2)
    resumed, seen = trained(tmp_path / "parts", shards, settings)
    assert [metrics["epoch"] for metrics in seen] == [3, 4]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    _, seen = trained(tmp_path / "parts", shards, settings)
    assert seen == []


def test_ranks_share_the_same_global_batch() -> None:
    settings = quick_settings(batch_slides=6)
    alone = epoch_steps(BAGS, 2, 0, 1, settings)
    assert [len(step) for step in alone] == [6] * 4
    for world_size in (2, 3, 4):
        ranks = [epoch_steps(BAGS, 2, rank, world_size, settings) for rank in range(world_size)]
        for index, step in enumerate(alone):
            together = {(draw.bag.shard.slide, draw.seed) for rank in ranks for draw in rank[index]}
            assert together == {(draw.bag.shard.slide, draw.seed) for draw in step}
    assert alone[0][0].seed != epoch_steps(BAGS, 3, 0, 1, settings)[0][0].seed


def test_more_ranks_than_slides_in_a_batch_are_refused() -> None:
    with pytest.raises(RefusedInputError, match="do not give each of 5 workers one"):
        epoch_steps(BAGS, 0, 0, 5, quick_settings(batch_slides=4))


def test_reading_ahead_gives_the_same(shards: Store) -> None:
    steps = epoch_steps(BAGS, 0, 0, 1, quick_settings())
    readers = (BagReader(shards, keep=True), BagReader(shards, keep=False))
    now, ahead = (
        [bag.tiles for step in read_steps(steps, reader, quick_settings(loader_threads=threads)) for bag in step]
        for reader, threads in zip(readers, (0, 3), strict=True)
    )
    assert all(torch.equal(one, other) for one, other in zip(now, ahead, strict=True))


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(seen, 100, 1.0) for seen in range(101)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.01)
