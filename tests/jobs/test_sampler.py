"""Which samples a step holds: the same for every number of workers, and none skipped when that number changes."""

from __future__ import annotations

from collections import Counter

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.training.sampler import Draw, Sampler, read_steps
from dhctl.ray_jobs.training.schedule import learning_rate
from jobs.sample_task import Points, settings


def together(sampler: Sampler, seen: int, world_size: int) -> list[set[tuple[int, int | None]]]:
    """The draws of each step over all ranks."""
    ranks = [sampler.steps(seen, rank, world_size) for rank in range(world_size)]
    assert all(len(draws) >= sampler.batch // world_size for steps in ranks for draws in steps)
    return [{(draw.index, draw.seed) for rank in ranks for draw in rank[step]} for step in range(len(ranks[0]))]


def test_ranks_share_the_same_global_batch() -> None:
    sampler = Sampler.of(settings(batch=6, draws_per_epoch=2), 24, 1)
    alone = together(sampler, 48, 1)
    assert [len(step) for step in alone] == [6] * 8
    for world_size in (2, 3, 4):
        assert together(sampler, 48, world_size) == alone
    assert together(sampler, 96, 1) != alone


def test_no_sample_is_skipped_or_doubled_when_workers_come_and_go() -> None:
    sampler = Sampler.of(settings(batch=4), 20, 3)
    counted: Counter[int] = Counter()
    for epoch, world_size in enumerate((1, 3, 2, 4)):
        counted.update(index for step in together(sampler, epoch * sampler.per_epoch, world_size) for index, _ in step)
    assert set(counted) == set(range(20))
    assert set(counted.values()) == {4}


def test_each_draw_has_a_seed_of_its_own() -> None:
    sampler = Sampler.of(settings(batch=5, draws_per_epoch=3), 20, 1)
    seeds = [draw.seed for seen in (0, 60) for step in sampler.steps(seen, 0, 1) for draw in step]
    assert len(set(seeds)) == len(seeds) == 120


def test_more_ranks_than_samples_in_a_batch_are_refused() -> None:
    with pytest.raises(
        RefusedInputError, match=r"do not give each of 5 workers one; lower job\.workers, or raise batch"
    ):
        Sampler.of(settings(batch=4), 24, 5)


def test_reading_ahead_gives_the_same() -> None:
    steps = Sampler.of(settings(batch=3), 9, 1).steps(0, 0, 1)
    now, ahead = ([[s[0].tolist() for s in step] for step in read_steps(steps, Points(9), n)] for n in (0, 3))
    assert now == ahead
    assert next(read_steps([[Draw(2, None)]], Points(9), 0))[0][1] == 0


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(seen, 100, 1.0) for seen in range(101)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.01)
