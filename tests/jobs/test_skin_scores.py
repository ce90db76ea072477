"""The scores of the skin job, held against scikit-learn's and against cases worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dhctl.ray_jobs.pipeline.intervals import bootstrap_interval
from dhctl.ray_jobs.skin.scores import (
    balanced_accuracy,
    balanced_accuracy_interval,
    calibration_error,
    macro_auc,
    recalls,
    sensitivity_at_specificity,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 80)
SHARES = RNG.dirichlet(np.ones(4), 80)


def test_balanced_accuracy_and_auc_are_scikit_learns() -> None:
    guesses = SHARES.argmax(axis=1)
    assert balanced_accuracy(LABELS, guesses) == pytest.approx(balanced_accuracy_score(LABELS, guesses))
    wanted = roc_auc_score(LABELS, SHARES, multi_class="ovr", average="macro")
    assert macro_auc(LABELS, SHARES) == pytest.approx(wanted)


def test_a_class_without_pictures_is_left_out() -> None:
    labels, guesses = np.array([0, 0, 2]), np.array([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert balanced_accuracy(labels, guesses) == pytest.approx(0.75)
        assert recalls(labels, guesses, 3) == [0.5, None, 1.0]
        assert macro_auc(labels, np.eye(3)[guesses]) == pytest.approx((0.75 + 1) / 2)
        assert np.isnan(macro_auc(np.array([1, 1]), SHARES[:2]))


def test_the_interval_is_that_of_the_score_and_wider_when_pictures_share_lesions() -> None:
    guesses = np.where(RNG.random(80) < 0.6, LABELS, SHARES.argmax(axis=1))
    alone, shared = [str(n) for n in range(80)], [str(n // 8) for n in range(80)]
    slow = bootstrap_interval(alone, lambda rows: balanced_accuracy(LABELS[rows], guesses[rows]), seed=3, rounds=100)
    quick = balanced_accuracy_interval(alone, LABELS, guesses, seed=3)
    assert quick == pytest.approx(slow, abs=0.05)
    assert quick[0] < balanced_accuracy(LABELS, guesses) < quick[1]
    assert quick == balanced_accuracy_interval(alone, LABELS, guesses, seed=3)
    wide = balanced_accuracy_interval(shared, LABELS, guesses, seed=3)
    assert wide[1] - wide[0] != quick[1] - quick[0]


def test_the_quick_balanced_accuracy_equals_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses, rows = SHARES.argmax(axis=1), np.array([3, 3, 17, 40, 41])

    def once(_groups: object, metric: object, _seed: int) -> tuple[float, float]:
        return metric(rows), 0.0  # type: ignore[operator]

    monkeypatch.setattr("dhctl.ray_jobs.skin.scores.bootstrap_interval", once)
    found = balanced_accuracy_interval(["a"] * 80, LABELS, guesses, 0)[0]
    assert found == pytest.approx(balanced_accuracy(LABELS[rows], guesses[rows]))


def test_sensitivity_at_specificity_by_hand() -> None:
    positive = np.array([True] * 4 + [False] * 10)
    scores = np.array([0.9, 0.8, 0.55, 0.1, 0.85, 0.5, *[0.0] * 8])
    assert sensitivity_at_specificity(positive, scores, 0.9) == pytest.approx(0.75), "one of ten others may be above"
    assert sensitivity_at_specificity(positive, scores, 1.0) == pytest.approx(0.25)
    assert np.isnan(sensitivity_at_specificity(positive[:4], scores[:4], 0.9))


def test_calibration_error_by_hand() -> None:
    sure = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(np.array([0] * 9 + [1]), sure) == pytest.approx(0.0)
    assert calibration_error(np.array([0] * 5 + [1] * 5), sure) == pytest.approx(0.4)
    both = np.concatenate([sure, [[0.4, 0.6]] * 10])
    labels = np.array([0] * 9 + [1] + [1] * 6 + [0] * 4)
    assert calibration_error(labels, both) == pytest.approx(0.0)
    assert calibration_error(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0
