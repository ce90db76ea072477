"""A small training whose every step says which draws it took, and when, as an object in the output."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.task import Part, Watched

SAMPLES, VALIDATED = 40, 64


@dataclass(frozen=True)
class Points:
    """Points on two sides of a plane; each comes with the seed that drew it."""

    first: int
    count: int

    def __len__(self) -> int:
        """How many."""
        return self.count

    def read(self, index: int, draw: int | None) -> tuple[torch.Tensor, float, str]:
        """Point, side, and which draw it is."""
        side = (self.first + index) % 2
        point = np.random.default_rng(self.first + index).normal(size=4)
        point[0] += 2.0 * side - 1.0
        if draw is not None:
            point += np.random.default_rng(draw).normal(0, 0.1, 4)
        return torch.from_numpy(point).float(), float(side), f"{index}-{draw}"


@dataclass(frozen=True)
class Noted:
    """Which side a point is on. `step_s`: how long a step takes at least."""

    output: Store
    step_s: float
    watched: Watched = Watched("validation_loss", best="min")  # noqa: RUF009 - frozen

    def build_model(self) -> nn.Module:
        """Two layers."""
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def dataset(self, part: Part) -> Points:
        """The validation points are others."""
        return Points(0, SAMPLES) if part == "train" else Points(10_000, VALIDATED)

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        """Notes the draws before it computes."""
        if self.step_s:
            time.sleep(self.step_s)
            noted = {"at": time.time(), "draws": [draw for _, _, draw in samples]}
            self.output.write(f"draws/{secrets.token_hex(8)}.json", json.dumps(noted).encode())
        points = torch.stack([point for point, _, _ in samples]).to(device)
        sides = torch.tensor([side for _, side, _ in samples], device=device)
        return nn.functional.binary_cross_entropy_with_logits(model(points)[:, 0].float(), sides)

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> float:
        """The loss of one point."""
        point, side, _ = sample
        logit = model(point.to(device)[None])[0].float()
        return float(nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor([side], device=device)))

    def metrics(self, findings: Sequence[float]) -> Mapping[str, float]:
        """The mean loss."""
        return {"validation_loss": sum(findings) / len(findings)}
