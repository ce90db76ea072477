"""What a model must be compared with: guesses from what needs no look at structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_colour_baseline(
    train_rgb: Sequence[Sequence[float]],
    train_labels: Sequence[int],
    test_rgb: Sequence[Sequence[float]],
    balanced: bool = False,
) -> list[int]:
    """Labels by logistic regression on the mean colour of a picture: what a classifier blind to structure can do.

    `balanced` gives all classes the same weight, for scores that do so too.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(train_labels)) < 2:
        return [train_labels[0]] * len(test_rgb)
    weights = "balanced" if balanced else None
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight=weights))
    regression.fit(np.asarray(train_rgb), train_labels)
    return [int(label) for label in regression.predict(np.asarray(test_rgb))]


def majority_baseline(train_labels: Sequence[int], count: int) -> list[int]:
    """The most frequent training label, for everyone."""
    return [int(np.bincount(train_labels).argmax())] * count
