"""Intervals of a metric by resampling groups: slides of a patient, or lesions, are not independent of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 2000


def bootstrap_interval(
    groups: Sequence[str], metric: Callable[[NDArray[np.int64]], float], seed: int, rounds: int = ROUNDS
) -> tuple[float, float]:
    """95 % percentile interval of a metric over resamples of groups, each with all of its rows.

    `groups` names the group of each row; `metric` gets the positions of the rows drawn (a row as often as its group was
    drawn). Rounds in which it is undefined (NaN) are left out; (NaN, NaN) where all are. Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapters 8 and 13.
    """
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(of_row == group) for group in range(len(names))]
    drawn = np.random.default_rng(seed).integers(len(names), size=(rounds, len(names)))
    values = np.array([metric(np.concatenate([rows[group] for group in draw])) for draw in drawn])
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
