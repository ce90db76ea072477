"""A training from order to model.pt: with Ray or without, gone on with where it was left."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import JobStoppedError
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.epochs import EpochLog
from dhctl.ray_jobs.training.runner import TrainingOrder
from dhctl.ray_jobs.training.task import Metrics

MODEL_FILE = "model.pt"
"""In the output: the state dict of the best epoch, and how it came about."""


def fit(order: TrainingOrder, with_ray: bool) -> None:
    """Train and write model.pt and metrics.jsonl; does nothing where training of this name is complete.

    Raises RefusedInputError, and JobStoppedError when training cannot go on.
    """
    if is_trained(order.output, order.name):
        return
    import torch

    from dhctl.ray_jobs.training import checkpoint

    log = EpochLog(order.output, order.name, order.settings.epochs)
    report.progress("train", 0, order.settings.epochs)
    found = checkpoint.newest(_training_function(with_ray)(order, log.add))
    if found is None:
        raise JobStoppedError("training ended without a checkpoint; see the job's log for the workers' output")
    log.settle(found.state["history"])
    best = found.state["best"]
    saved = {
        "model": best["model"],
        "best_epoch": best["epoch"],
        "best_value": best["value"],
        "epochs_done": found.state["epochs_done"],
        "history": found.state["history"],
        "training": order.name,
        "settings": order.settings.model_dump(by_alias=True),
    }
    content = io.BytesIO()
    torch.save(saved, content)
    order.output.write(MODEL_FILE, content.getvalue())


def is_trained(output: Store, name: str) -> bool:
    """Whether the output has the model of a complete training of this name."""
    return output.exists(MODEL_FILE) and read_model(output).get("training") == name


def read_model(output: Store) -> dict[str, Any]:
    """What model.pt of this output holds, on the CPU. Raises FileNotFoundError."""
    import torch

    saved: dict[str, Any] = torch.load(io.BytesIO(output.read(MODEL_FILE)), map_location="cpu", weights_only=True)
    return saved


def _training_function(with_ray: bool) -> Callable[[TrainingOrder, Callable[[Metrics], None]], Store]:
    # Each import brings its own: without Ray, Ray is not loaded.
    if with_ray:
        from dhctl.ray_jobs.training.ray_training import train_on_ray

        return train_on_ray
    from dhctl.ray_jobs.training.plain_training import train_without_ray

    return train_without_ray
