"""What a result says beside its scores: data, settings, versions, speed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dhctl.ray_jobs.environment import PHANTOMS
from dhctl.ray_jobs.pipeline.recipe import CohortT, Recipe, SettingsT
from dhctl.ray_jobs.training.fit import MODEL_FILE, read_model

if TYPE_CHECKING:
    from dhctl.ray_jobs.pipeline.job import Job

RESULT_FILE = "result.json"
PACKAGES = ("torch", "ray", "monai", "scikit-learn", "numpy")
"""Distributions whose versions every result names."""


def circumstances(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT], cohort: CohortT) -> dict[str, Any]:
    """Everything in a result but the scores."""
    saved = read_model(job.output)
    history, watched = saved["history"], recipe.task(job, cohort).watched.metric
    rates = sorted(epoch["samples_per_s"] for epoch in history)
    return {
        "run": job.env.run_id,
        "data": recipe.what_phantoms_are if job.env.data == PHANTOMS else job.env.data,
        "skipped": [asdict(row) for row in cohort.skipped],
        "seed": job.settings.seed,
        "epochs": len(history),
        "best_epoch": saved["best_epoch"],
        watched: [round(epoch[watched], 4) for epoch in history],
        "samples_per_s": {"median": round(rates[len(rates) // 2], 2), "unit": f"{recipe.sample}s"},
        "workers": {
            "count": job.env.workers,
            "cpus": job.env.worker_cpus,
            "gpus": job.env.worker_gpus,
            "by_epoch": [int(epoch["workers"]) for epoch in history],
        },
        "settings": job.settings.model_dump(mode="json", by_alias=True),
        "digests": {"data": cohort.digest, "model": hashlib.sha256(job.output.read(MODEL_FILE)).hexdigest()},
        "versions": versions(*PACKAGES, *recipe.packages),
        "seconds": {stage: round(seconds, 2) for stage, seconds in job.seconds.items()},
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of these distributions."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
