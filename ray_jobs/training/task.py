"""What the training core needs of a job: how to build the model, the samples, one step, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

Part = Literal["train", "validation"]

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Watched:
    """The validation metric by which epochs are compared: early stop and the kept model follow it."""

    metric: str
    """A key of what `Task.metrics` gives."""
    best: Literal["max", "min"] = "max"
    """Whether a larger or a smaller value is better."""

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better; NaN never is."""
        return value > than if self.best == "max" else value < than


class Dataset(Protocol):
    """The samples of one part: the same number in the same order on every rank."""

    def __len__(self) -> int:
        """How many samples."""
        ...

    def read(self, index: int, draw: int | None) -> Any:
        """One sample, as arrays or tensors on the CPU. Called from several threads at once.

        `draw` is a seed of its own for each time a sample is drawn: all variation (augmentation, which patch) must come
        from it alone, such as through `numpy.random.default_rng(draw)`. None means no variation (validation).
        """
        ...


class Task(Protocol):
    """A job's training. It is pickled and sent to each train worker: a frozen dataclass of settings and stores."""

    @property
    def watched(self) -> Watched:
        """Which metric says that an epoch was better."""
        ...

    def build_model(self) -> nn.Module:
        """The network with fresh weights, drawn from torch's generator, which the core seeds before."""
        ...

    def dataset(self, part: Part) -> Dataset:
        """The samples of a part; called once a part on each worker."""
        ...

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        """The MEAN loss over these samples, a scalar with a gradient; `model` is to be called once.

        Called under autocast (bf16 on a GPU); compute the loss itself from `.float()` outputs. Each rank has its share
        of the global batch, at least one sample.
        """
        ...

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> Any:
        """What the model makes of one validation sample, small and picklable; without gradients, in eval mode."""
        ...

    def metrics(self, findings: Sequence[Any]) -> Metrics:
        """Metrics of the whole validation part, from the findings of all ranks in the order of the samples."""
        ...
