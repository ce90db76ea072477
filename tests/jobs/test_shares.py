"""How elastic trainings share a cluster's workers."""

from __future__ import annotations

import pytest

from dhctl.ray_jobs.training.shares import Claim, shares


def given(capacity: int, *bounds: tuple[int, int]) -> list[int]:
    """Shares of trainings with these bounds, in the order they came."""
    claims = [Claim(str(n), float(n), least, most) for n, (least, most) in enumerate(bounds)]
    return list(shares(reversed(claims), capacity).values())


@pytest.mark.parametrize(
    ("capacity", "bounds", "wanted"),
    [
        (2, [(1, 2)], [2]),
        (2, [(1, 2), (1, 2)], [1, 1]),
        (2, [(1, 2), (1, 2), (1, 2)], [1, 1, 0]),
        (8, [(1, 4), (2, 8), (1, 1)], [3, 4, 1]),
        (8, [(1, 2), (1, 2)], [2, 2]),
        (3, [(2, 4), (2, 4), (1, 1)], [2, 0, 1]),
        (1, [(2, 4)], [0]),
    ],
)
def test_everyone_gets_the_minimum_in_order_and_the_rest_goes_round(
    capacity: int, bounds: list[tuple[int, int]], wanted: list[int]
) -> None:
    assert given(capacity, *bounds) == wanted
    assert sum(wanted) <= capacity


def test_a_training_that_runs_keeps_its_minimum_when_others_come() -> None:
    for others in range(1, 9):
        assert given(4, (2, 4), *[(1, 4)] * others)[0] >= 2
