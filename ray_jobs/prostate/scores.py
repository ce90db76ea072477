"""Quadratic weighted kappa, its interval, and what it must be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.prostate.settings import GRADES

BOOTSTRAP_ROUNDS = 2000


def quadratic_kappa(grades: Sequence[int], predicted: Sequence[int]) -> float:
    """Cohen's kappa with quadratic weights, -1 to 1 (scikit-learn's); 0 where all are alike and it is undefined."""
    from sklearn.metrics import cohen_kappa_score

    if len(set(grades) | set(predicted)) < 2:
        return 0.0
    return float(cohen_kappa_score(grades, predicted, weights="quadratic"))


def bootstrap_interval(
    patients: Sequence[str], grades: Sequence[int], predicted: Sequence[int], seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the kappa over 2000 resamples of patients, each with all of their slides."""
    # From confusion matrices, one a patient, whose sum over a resample gives kappa by Cohen's formula (1968): scikit-
    # learn once a round would take seconds. A test holds both to the same values.
    names = sorted(set(patients))
    tables = np.zeros((len(names), GRADES, GRADES))
    for patient, grade, guess in zip(patients, grades, predicted, strict=True):
        tables[names.index(patient), grade, guess] += 1
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(BOOTSTRAP_ROUNDS, len(names)))
    values = [_kappa_of_table(tables[row].sum(axis=0)) for row in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_colour_baseline(
    train_rgb: Sequence[Sequence[float]], train_grades: Sequence[int], test_rgb: Sequence[Sequence[float]]
) -> list[int]:
    """Grades by logistic regression on the mean colour of a slide's tiles: what a grader blind to structure can do."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(train_grades)) < 2:
        return [train_grades[0]] * len(test_rgb)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(np.asarray(train_rgb), train_grades)
    return [int(grade) for grade in regression.predict(np.asarray(test_rgb))]


def majority_baseline(train_grades: Sequence[int], count: int) -> list[int]:
    """The most frequent training grade, for everyone."""
    return [int(np.bincount(train_grades).argmax())] * count


def _kappa_of_table(table: NDArray[np.float64]) -> float:
    levels = np.arange(GRADES)
    weights = (levels[:, None] - levels[None, :]) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    by_chance = float((weights * expected).sum())
    return 1 - float((weights * table).sum()) / by_chance if by_chance else 0.0
