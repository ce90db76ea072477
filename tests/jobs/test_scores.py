"""Kappa, its interval and the baselines."""

from __future__ import annotations

import numpy as np
import pytest

from dhctl.ray_jobs.pipeline.baselines import majority_baseline, mean_colour_baseline
from dhctl.ray_jobs.prostate import scores
from dhctl.ray_jobs.prostate.scores import kappa_interval, quadratic_kappa


def test_kappa_is_one_for_truth_and_zero_where_it_is_undefined() -> None:
    assert quadratic_kappa([0, 1, 5], [0, 1, 5]) == pytest.approx(1)
    assert quadratic_kappa([2, 2], [2, 2]) == 0
    assert quadratic_kappa([0, 5], [5, 0]) == pytest.approx(-1)


def test_the_quick_kappa_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grades, predicted = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
        table = np.zeros((6, 6))
        np.add.at(table, (grades, predicted), 1)
        assert scores._kappa_of_table(table) == pytest.approx(quadratic_kappa(grades.tolist(), predicted.tolist()))


def test_the_interval_holds_the_score_and_is_wider_when_slides_share_patients() -> None:
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 6, 120).tolist()
    predicted = [int(np.clip(grade + rng.integers(-2, 3), 0, 5)) for grade in grades]
    alone = kappa_interval([str(n) for n in range(120)], grades, predicted, seed=0)
    shared = kappa_interval([str(n // 12) for n in range(120)], grades, predicted, seed=0)
    value = quadratic_kappa(grades, predicted)
    assert alone[0] < value < alone[1]
    assert shared[0] < value < shared[1]
    assert alone == kappa_interval([str(n) for n in range(120)], grades, predicted, seed=0)


def test_baselines() -> None:
    assert majority_baseline([1, 4, 4], 2) == [4, 4]
    assert mean_colour_baseline([(10, 0, 0), (200, 0, 0)] * 5, [0, 5] * 5, [(12, 0, 0), (190, 0, 0)]) == [0, 5]
    assert mean_colour_baseline([(1, 1, 1)], [3], [(9, 9, 9)]) == [3]
