"""What the training loop needs of its surroundings, and the surroundings without Ray."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

Metrics = Mapping[str, float]

STATE_FILE = "state.pt"
"""The file in a checkpoint folder."""


class Runner(Protocol):
    """One of `world_size` processes that train one model together."""

    rank: int
    world_size: int
    device: torch.device

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model on the device, with gradients averaged over ranks."""
        ...

    def latest(self) -> Any:
        """A context manager that gives the folder of the last checkpoint, or None."""
        ...

    def gathered(self, values: list[Any]) -> list[Any]:
        """The lists of all ranks, one after the other, on every rank."""
        ...

    def report(self, metrics: Metrics, checkpoint: Path | None) -> None:
        """Called once an epoch by every rank; rank 0 gives a folder, which is copied before this returns."""
        ...


class PlainRunner:
    """A single process without Ray: checkpoints are folders epoch-00001 and on."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path, device: torch.device, keep: int, on_report: Callable[[Metrics], None]) -> None:
        self.device = device
        self._folder, self._keep, self._on_report = folder, keep, on_report

    def wrapped(self, model: nn.Module) -> nn.Module:
        """See Runner."""
        return model.to(self.device)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """See Runner."""
        folders = self._checkpoints()
        yield folders[-1] if folders else None

    def gathered(self, values: list[Any]) -> list[Any]:
        """See Runner."""
        return values

    def report(self, metrics: Metrics, checkpoint: Path | None) -> None:
        """See Runner."""
        if checkpoint is not None:
            target = self._folder / f"epoch-{int(metrics['epoch']):05d}"
            partial = self._folder / f".{target.name}.part"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(checkpoint, partial)
            partial.rename(target)
            for old in self._checkpoints()[: -self._keep]:
                shutil.rmtree(old)
        self._on_report(metrics)

    def _checkpoints(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("epoch-*") if re.fullmatch(r"epoch-\d{5}", path.name))
