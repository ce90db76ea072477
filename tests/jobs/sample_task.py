"""A task of the training core in 60 lines, whose model uses every random generator there is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dhctl.ray_jobs.training.settings import TrainingSettings, settings_from
from dhctl.ray_jobs.training.task import Part, Watched

PROFILES: Mapping[str, Mapping[str, Any]] = {"tiny": {"epochs": 4, "batch": 5, "learning_rate": 0.02}}


def settings(**changes: Any) -> TrainingSettings:
    """Settings of the task."""
    return settings_from(TrainingSettings, PROFILES, changes)


@dataclass(frozen=True)
class Points:
    """Points on two sides of a plane, with a little noise where they are drawn for training."""

    count: int
    poisoned: int | None = None
    """A sample that is not a number."""

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, draw: int | None) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng(index)
        point = rng.normal(size=4)
        point[0] += 3 * (index % 2) - 1.5
        if draw is not None:
            point += np.random.default_rng(draw).normal(0, 0.1, 4)
        if index == self.poisoned:
            point[1] = np.nan
        return torch.from_numpy(point).float(), index % 2


@dataclass(frozen=True)
class Sides:
    """Which side of the plane a point is on."""

    watched: Watched = Watched("validation_accuracy")  # noqa: RUF009 - frozen
    samples: int = 23
    hidden: int = 8
    poisoned: int | None = None
    restless: bool = True
    """With dropout and with noise from NumPy's and Python's global generators."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, self.hidden), nn.Dropout(0.3 * self.restless), nn.Linear(self.hidden, 1))

    def dataset(self, part: Part) -> Points:
        return Points(self.samples, self.poisoned) if part == "train" else Points(11)

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        noise = 0.01 * self.restless * (np.random.rand() + random.random())
        points = torch.stack([point for point, _ in samples]).to(device) + noise
        sides = torch.tensor([float(side) for _, side in samples], device=device)
        return nn.functional.binary_cross_entropy_with_logits(model(points)[:, 0].float(), sides)

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> bool:
        return bool((model(sample[0].to(device)[None])[0, 0] > 0) == bool(sample[1]))

    def metrics(self, findings: Sequence[bool]) -> Mapping[str, float]:
        return {"validation_accuracy": sum(findings) / len(findings), "validated": len(findings)}
