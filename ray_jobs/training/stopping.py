"""Early stop: when the watched metric has not become better for some epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dhctl.ray_jobs.training.task import Metrics, Watched


def epochs_without_better(history: Sequence[Metrics], watched: Watched) -> int:
    """Epochs since the best one so far; an equal value is not better."""
    best, at = None, 0
    for epoch, metrics in enumerate(history):
        value = metrics[watched.metric]
        if math.isfinite(value) and (best is None or watched.better(value, best)):
            best, at = value, epoch
    return len(history) - 1 - at if history else 0


def is_over(history: Sequence[Metrics], watched: Watched, patience: int | None) -> bool:
    """Whether training ends here."""
    return patience is not None and epochs_without_better(history, watched) >= patience
