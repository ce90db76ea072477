"""What changes while training, and what a checkpoint keeps of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError
from dhctl.ray_jobs.training import checkpoint, randomness
from dhctl.ray_jobs.training.runner import Runner
from dhctl.ray_jobs.training.sampler import Sampler
from dhctl.ray_jobs.training.settings import TrainingSettings
from dhctl.ray_jobs.training.task import Task, Watched


@dataclass
class Progress:
    """A model on its way."""

    model: nn.Module
    """As the runner wrapped it."""
    optimizer: torch.optim.Optimizer
    samples_seen: int = 0
    """Over all ranks: the position of the schedule and of the sampler."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of each epoch so far."""
    best: dict[str, Any] | None = None
    """Rank 0 only: epoch, value of the watched metric, and model of the best epoch so far."""

    @property
    def bare(self) -> nn.Module:
        """The model without DistributedDataParallel around it."""
        inner = getattr(self.model, "module", self.model)
        assert isinstance(inner, nn.Module)
        return inner

    def close_epoch(self, metrics: dict[str, float], watched: Watched, keep_best: bool) -> None:
        """Take an epoch into the history. Raises RefusedInputError where it lacks the watched metric."""
        if watched.metric not in metrics:
            raise RefusedInputError(
                f"the task watches {watched.metric}, but an epoch has {', '.join(metrics)}; watch one of these"
            )
        self.history.append(metrics)
        value = metrics[watched.metric]
        # An equal later epoch is taken: it has seen more.
        if keep_best and (
            self.best is None or (math.isfinite(value) and not watched.better(self.best["value"], value))
        ):
            model = {name: tensor.detach().cpu().clone() for name, tensor in self.bare.state_dict().items()}
            self.best = {"epoch": len(self.history), "value": value, "model": model}

    def state(self, sampler: Sampler, generators: list[dict[str, Any]]) -> dict[str, Any]:
        """What a checkpoint holds; `generators` are those of all ranks."""
        return {
            "model": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs_done": len(self.history),
            "samples_seen": self.samples_seen,
            "sampler": _order(sampler),
            "generators": generators,
            "history": self.history,
            "best": self.best,
        }

    def restore(self, where: str, state: Mapping[str, Any], sampler: Sampler) -> None:
        """Go on from a checkpoint's state. Raises RefusedInputError where it is of another model or other data."""
        checkpoint.require_same_model(where, state["model"], self.bare.state_dict())
        if state["sampler"] != _order(sampler):
            raise RefusedInputError(
                f"checkpoint {where} is of a training on {state['sampler']['samples']} samples in batches of "
                f"{state['sampler']['batch']}, here are {sampler.samples} in batches of {sampler.batch}; give this "
                "training another output, or the data and settings that the checkpoint was made with"
            )
        self.bare.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.samples_seen, self.history, self.best = state["samples_seen"], state["history"], state["best"]


def begin(runner: Runner, task: Task, settings: TrainingSettings, sampler: Sampler) -> Progress:
    """The model as the newest whole checkpoint has it, or fresh. Raises RefusedInputError, see Progress.restore."""
    torch.manual_seed(settings.seed)  # the same weights on all ranks and after any number of restarts
    model = runner.wrapped(task.build_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    progress = Progress(model, optimizer)
    # Rank 0 chooses for all: two listings of a store may differ.
    found = checkpoint.newest(runner.checkpoints) if runner.rank == 0 else None
    chosen = runner.gathered([found.name if found else None] if runner.rank == 0 else [])[0]
    if chosen is None:
        randomness.seed_all(settings.seed, 0, runner.rank)
        return progress
    state = found.state if found else _read(runner, chosen)
    progress.restore(f"{runner.checkpoints.url}/{chosen}", state, sampler)
    if runner.rank != 0:
        progress.best = None
    if len(state["generators"]) == runner.world_size:
        randomness.restore(state["generators"][runner.rank], runner.device)
    else:  # other workers than before: each gets a stream of its own from here on
        randomness.seed_all(settings.seed, progress.samples_seen, runner.rank)
    return progress


def _read(runner: Runner, name: str) -> dict[str, Any]:
    try:
        return checkpoint.read(runner.checkpoints, name)
    except checkpoint.BrokenCheckpointError as error:
        raise JobStoppedError(
            f"this worker cannot read checkpoint {runner.checkpoints.url}/{name}, which another one can: {error}; the "
            "output must be the same place on all nodes"
        ) from error


def _order(sampler: Sampler) -> dict[str, int]:
    return {
        "seed": sampler.seed,
        "samples": sampler.samples,
        "batch": sampler.batch,
        "passes": sampler.passes,
    }
