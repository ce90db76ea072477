"""The evaluate stage: scores on held-out lesions beside what a classifier reaches that sees the mean colour alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dhctl.ray_jobs import report
from dhctl.ray_jobs.pipeline.baselines import majority_baseline, mean_colour_baseline
from dhctl.ray_jobs.pipeline.split import PARTS
from dhctl.ray_jobs.skin.preparation import Cohort
from dhctl.ray_jobs.skin.scores import (
    Probabilities,
    balanced_accuracy,
    balanced_accuracy_interval,
    calibration_error,
    macro_auc,
    recalls,
    sensitivity_at_specificity,
)
from dhctl.ray_jobs.skin.shards import StoredPicture
from dhctl.ray_jobs.skin.task import Classification, SquareDataset, predicted
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.loop import precision
from dhctl.ray_jobs.training.sampler import Draw, read_steps

PREDICTIONS_FILE = "predictions.csv"
MELANOMA = ("mel", "melanoma")
"""Names, in lower case, of the class whose sensitivity is scored."""
SPECIFICITY = 0.9
DIGITS = 4


def probabilities_of(
    pictures: Sequence[StoredPicture], task: Classification, state: Mapping[str, Any], device: torch.device
) -> Probabilities:
    """What the model of this state dict gives to each class for each picture, (n, classes)."""
    model = task.build_model().to(device)
    model.load_state_dict(state)
    model.eval()
    dataset = SquareDataset(pictures, task.shards, task.settings)
    steps = [[Draw(index, None)] for index in range(len(dataset))]
    with torch.no_grad(), precision(device):
        samples = read_steps(steps, dataset, task.settings.loader_threads)
        return np.stack([predicted(model, sample, device) for (sample,) in samples])


def scored(cohort: Cohort, probabilities: Probabilities, seed: int) -> dict[str, Any]:
    """Everything in a result that follows from the probabilities predicted for the test pictures."""
    train, test = cohort.part("train"), cohort.part("test")
    labels, guesses = np.array([picture.label for picture in test]), probabilities.argmax(axis=1)
    low, high = balanced_accuracy_interval([picture.lesion for picture in test], labels, guesses, seed)
    recall = recalls(labels, guesses, len(cohort.classes))
    baselines = _baselines(train, test)
    return {
        "metric": {
            "name": "balanced_accuracy",
            "value": round(balanced_accuracy(labels, guesses), DIGITS),
            "ci95": [round(low, DIGITS), round(high, DIGITS)],
            "baseline": baselines[0],
            "baselines": baselines,
        },
        "scores": {
            "macro_auc": _rounded(macro_auc(labels, probabilities)),
            "melanoma_sensitivity_at_specificity_0.9": _melanoma_sensitivity(cohort.classes, probabilities, labels),
            "expected_calibration_error": _rounded(calibration_error(labels, probabilities)),
        },
        "recall": dict(zip(cohort.classes, map(_rounded, recall), strict=True)),
        "images": {part: len(cohort.part(part)) for part in PARTS},
        "lesions": {part: len({picture.lesion for picture in cohort.part(part)}) for part in PARTS},
        "images_of_class": {
            name: sum(picture.label == label for picture in cohort.pictures)
            for label, name in enumerate(cohort.classes)
        },
    }


def write_predictions(output: Store, cohort: Cohort, probabilities: Probabilities) -> None:
    """predictions.csv: one line a held-out picture, with the probability of each class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "lesion_id", "label", "predicted", *cohort.classes])
    for picture, row in zip(cohort.part("test"), probabilities, strict=True):
        guess = cohort.classes[int(row.argmax())]
        shares = (f"{value:.5f}" for value in row)
        table.writerow([picture.image, picture.lesion, cohort.classes[picture.label], guess, *shares])
    output.write(PREDICTIONS_FILE, text.getvalue().encode())


def _baselines(train: Sequence[StoredPicture], test: Sequence[StoredPicture]) -> list[dict[str, Any]]:
    labels, train_labels = np.array([p.label for p in test]), [p.label for p in train]
    by_colour = mean_colour_baseline(
        [p.mean_rgb for p in train], train_labels, [p.mean_rgb for p in test], balanced=True
    )
    guesses = {
        "mean colour, logistic regression": by_colour,
        "most frequent class": majority_baseline(train_labels, len(test)),
    }
    return [
        {"name": name, "value": round(balanced_accuracy(labels, np.array(guess)), DIGITS)}
        for name, guess in guesses.items()
    ]


def _melanoma_sensitivity(classes: Sequence[str], probabilities: Probabilities, labels: Any) -> float | None:
    place = next((label for label, name in enumerate(classes) if name.lower() in MELANOMA), None)
    if place is None:
        report.warning(f"no class is called {' or '.join(MELANOMA)}: its sensitivity is not in the result")
        return None
    return _rounded(sensitivity_at_specificity(labels == place, probabilities[:, place], SPECIFICITY))


def _rounded(value: float | None) -> float | None:
    """For a result, which is JSON: no NaN."""
    return None if value is None or math.isnan(value) else round(value, DIGITS)
