"""What is to be trained, what the loop needs of its surroundings, and the surroundings without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from dhctl.ray_jobs.environment import JobEnvironment
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training import checkpoint
from dhctl.ray_jobs.training.settings import TrainingSettings
from dhctl.ray_jobs.training.task import Metrics, Task


@dataclass(frozen=True)
class TrainingOrder:
    """One training: what, how, on which workers, and where its checkpoints lie."""

    name: str
    """Equal names in one output are one training: it goes on from its last checkpoint."""
    task: Task
    settings: TrainingSettings
    env: JobEnvironment
    output: Store


class Runner(Protocol):
    """One of `world_size` processes that train one model together."""

    rank: int
    world_size: int
    device: torch.device
    checkpoints: Store
    """Where the checkpoints of this training lie."""

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model on the device, with gradients averaged over ranks."""
        ...

    def gathered(self, values: list[Any]) -> list[Any]:
        """The lists of all ranks, one after the other, on every rank."""
        ...

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """Called once an epoch by every rank; rank 0 gives a checkpoint's folder, which is stored before this returns.

        `metrics` has the key epoch, from which the stored checkpoint gets its name.
        """
        ...


class PlainRunner:
    """A single process without Ray."""

    rank = 0
    world_size = 1

    def __init__(
        self, checkpoints: Store, device: torch.device, keep: int, on_report: Callable[[Metrics], None]
    ) -> None:
        self.checkpoints, self.device = checkpoints, device
        self._keep, self._on_report = keep, on_report

    def wrapped(self, model: nn.Module) -> nn.Module:
        """See Runner."""
        return model.to(self.device)

    def gathered(self, values: list[Any]) -> list[Any]:
        """See Runner."""
        return values

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """See Runner."""
        if folder is not None:
            name = checkpoint.name_of(int(metrics["epoch"]))
            checkpoint.store(folder, self.checkpoints, name)
            others = [other for other in checkpoint.names(self.checkpoints) if other != name]
            for old in others[self._keep - 1 :]:
                checkpoint.remove(self.checkpoints, old)
        self._on_report(metrics)
