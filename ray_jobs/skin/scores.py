"""Scores of a classifier of lesions, with scikit-learn where it has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.pipeline.intervals import bootstrap_interval

Labels = NDArray[np.int64]
"""Class of each picture, (n,)."""

Probabilities = NDArray[np.float64]
"""Probability of each class for each picture, (n, classes)."""

CALIBRATION_BINS = 15


def balanced_accuracy(labels: Labels, guesses: Labels) -> float:
    """Mean recall over the classes that are there, 0 to 1: the metric of ISIC 2018 and 2019."""
    from sklearn.metrics import recall_score

    # balanced_accuracy_score is the same, but warns of guesses that are no label, which small resamples have.
    return float(recall_score(labels, guesses, labels=np.unique(labels), average="macro", zero_division=0))


def balanced_accuracy_interval(
    lesions: Sequence[str], labels: Labels, guesses: Labels, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the balanced accuracy over resamples of lesions, each with all of its pictures."""
    # From counts: scikit-learn once a round would take seconds. A test holds both to the same values.
    right, classes = labels == guesses, int(labels.max()) + 1

    def quick(rows: NDArray[np.int64]) -> float:
        there = np.bincount(labels[rows], minlength=classes)
        found = np.bincount(labels[rows], weights=right[rows], minlength=classes)
        return float((found[there > 0] / there[there > 0]).mean())

    return bootstrap_interval(lesions, quick, seed)


def recalls(labels: Labels, guesses: Labels, classes: int) -> list[float | None]:
    """Recall of each class; None for a class without a picture."""
    from sklearn.metrics import recall_score

    found = recall_score(labels, guesses, labels=np.arange(classes), average=None, zero_division=0)
    return [float(value) if (labels == label).any() else None for label, value in enumerate(found)]


def macro_auc(labels: Labels, probabilities: Probabilities) -> float:
    """Mean over the classes of the area under the ROC curve of that class against all others; NaN where undefined.

    Classes without a picture are left out.
    """
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(labels == label, probabilities[:, label])
        for label in range(probabilities.shape[1])
        if 0 < (labels == label).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def sensitivity_at_specificity(positive: NDArray[np.bool_], scores: NDArray[np.float64], specificity: float) -> float:
    """The highest share of positives that a threshold finds which leaves at least `specificity` of the others alone.

    NaN where all or none are positive. The threshold is chosen on these same pictures, so it flatters a little.
    """
    from sklearn.metrics import roc_curve

    if positive.all() or not positive.any():
        return float("nan")
    false_rate, true_rate, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(true_rate[false_rate <= 1 - specificity + 1e-9].max())


def calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Expected calibration error, 0 to 1: sum over bins of |B| / n x |accuracy(B) - mean confidence(B)|.

    Confidence is the largest probability, in 15 bins of equal width. Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, equation 3.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    # A bin is open on the left, as in the paper: 1/15 belongs to the first.
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int).clip(1, CALIBRATION_BINS)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS + 1)
    return float(np.abs(gaps).sum() / len(labels))
