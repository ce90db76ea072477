"""The evaluate stage: the kappa of held-out patients beside what a trivial grader reaches on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dhctl.ray_jobs.prostate.preparation import Cohort
from dhctl.ray_jobs.prostate.scores import (
    bootstrap_interval,
    majority_baseline,
    mean_colour_baseline,
    quadratic_kappa,
)
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import Bag
from dhctl.ray_jobs.storage import Store

MODEL_FILE = "model.pt"
PREDICTIONS_FILE = "predictions.csv"
DIGITS = 4


@dataclass(frozen=True)
class GradeTask:
    """Slides to grade with the model in `output`."""

    bags: tuple[Bag, ...]
    output: Store
    shards: Store
    settings: Settings
    cpus: int
    gpu: bool


def grade_slides(task: GradeTask) -> list[int]:
    """The model's grade of each slide; runs wherever it is called, on a worker too."""
    import torch

    from dhctl.ray_jobs.prostate.bags import BagReader
    from dhctl.ray_jobs.prostate.loop import predict
    from dhctl.ray_jobs.prostate.model import build_model

    torch.set_num_threads(task.cpus)
    device = torch.device("cuda" if task.gpu and torch.cuda.is_available() else "cpu")
    saved = torch.load(io.BytesIO(task.output.read(MODEL_FILE)), map_location=device, weights_only=True)
    model = build_model(task.settings.encoder)
    model.load_state_dict(saved["model"])
    reader = BagReader(task.shards, keep=False)
    return predict(model.to(device), task.bags, reader, task.settings, device)


def grade_on_ray(task: GradeTask) -> list[int]:
    """`grade_slides` as a Ray task of a worker's size: the head node has neither its cores nor its GPU."""
    import ray

    remote: Any = ray.remote(num_cpus=task.cpus, num_gpus=1 if task.gpu else 0, max_retries=3)(grade_slides)
    grades: list[int] = ray.get(remote.remote(task))
    return grades


def scored(cohort: Cohort, predicted: Sequence[int], seed: int) -> dict[str, Any]:
    """The parts `metric` and `slides` of a result, from the grades predicted for the test slides."""
    train, test = cohort.part("train"), cohort.part("test")
    grades = [bag.grade for bag in test]
    low, high = bootstrap_interval([bag.patient for bag in test], grades, predicted, seed)
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
