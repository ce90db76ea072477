"""Quadratic weighted kappa and its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.pipeline.intervals import bootstrap_interval
from dhctl.ray_jobs.prostate.settings import GRADES


def quadratic_kappa(grades: Sequence[int], predicted: Sequence[int]) -> float:
    """Cohen's kappa with quadratic weights, -1 to 1 (scikit-learn's); 0 where all are alike and it is undefined."""
    from sklearn.metrics import cohen_kappa_score

    if len(set(grades) | set(predicted)) < 2:
        return 0.0
    return float(cohen_kappa_score(grades, predicted, weights="quadratic"))


def kappa_interval(
    patients: Sequence[str], grades: Sequence[int], predicted: Sequence[int], seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the kappa over resamples of patients, each with all of their slides."""
    # From confusion matrices by Cohen's formula (1968): scikit-learn once a round would take seconds. A test holds both
    # to the same values.
    cells = np.asarray(grades) * GRADES + np.asarray(predicted)

    def kappa(rows: NDArray[np.int64]) -> float:
        counts = np.bincount(cells[rows], minlength=GRADES * GRADES)
        return _kappa_of_table(counts.reshape(GRADES, GRADES).astype(np.float64))

    return bootstrap_interval(patients, kappa, seed)


def _kappa_of_table(table: NDArray[np.float64]) -> float:
    levels = np.arange(GRADES)
    weights = (levels[:, None] - levels[None, :]) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    by_chance = float((weights * expected).sum())
    return 1 - float((weights * table).sum()) / by_chance if by_chance else 0.0
