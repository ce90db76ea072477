"""The evaluate stage: the kappa of held-out patients beside what a trivial grader reaches on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dhctl.ray_jobs.pipeline.baselines import majority_baseline, mean_colour_baseline
from dhctl.ray_jobs.prostate.bags import Bags
from dhctl.ray_jobs.prostate.preparation import Cohort
from dhctl.ray_jobs.prostate.scores import kappa_interval, quadratic_kappa
from dhctl.ray_jobs.prostate.shards import Bag
from dhctl.ray_jobs.prostate.task import Grading
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.loop import precision

PREDICTIONS_FILE = "predictions.csv"
DIGITS = 4


def grades_of(bags: Sequence[Bag], task: Grading, state: Mapping[str, Any], device: torch.device) -> list[int]:
    """The model's grade of each slide."""
    model = task.build_model().to(device)
    model.load_state_dict(state)
    model.eval()
    slides = Bags(bags, task.shards, task.settings)
    with torch.no_grad(), precision(device):
        return [task.validate(model, slides.read(index, None), device)[1] for index in range(len(slides))]


def scored(cohort: Cohort, predicted: Sequence[int], seed: int) -> dict[str, Any]:
    """The parts `metric` and `slides` of a result, from the grades predicted for the test slides."""
    train, test = cohort.part("train"), cohort.part("test")
    grades = [bag.grade for bag in test]
    low, high = kappa_interval([bag.patient for bag in test], grades, predicted, seed)
    train_grades = [bag.grade for bag in train]
    by_colour = mean_colour_baseline([b.shard.mean_rgb for b in train], train_grades, [b.shard.mean_rgb for b in test])
    baselines = [
        {"name": "mean colour, logistic regression", "value": round(quadratic_kappa(grades, by_colour), DIGITS)},
        {
            "name": "most frequent grade",
            "value": round(quadratic_kappa(grades, majority_baseline(train_grades, len(test))), DIGITS),
        },
    ]
    return {
        "metric": {
            "name": "quadratic_weighted_kappa",
            "value": round(quadratic_kappa(grades, predicted), DIGITS),
            "ci95": [round(low, DIGITS), round(high, DIGITS)],
            "baseline": baselines[0],
            "baselines": baselines,
        },
        "slides": {part: len(cohort.part(part)) for part in ("train", "validation", "test")},
        "patients": {part: len({bag.patient for bag in cohort.part(part)}) for part in ("train", "validation", "test")},
    }


def write_predictions(output: Store, test: Sequence[Bag], predicted: Sequence[int]) -> None:
    """predictions.csv: one line a held-out slide."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["slide", "patient", "isup_grade", "predicted"])
    table.writerows(
        [bag.shard.slide, bag.patient, bag.grade, guess] for bag, guess in zip(test, predicted, strict=True)
    )
    output.write(PREDICTIONS_FILE, text.getvalue().encode())
