"""What the training core needs of the prostate job: bags of tiles, the network, its loss, its kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dhctl.ray_jobs.prostate.bags import Bags, DrawnBag
from dhctl.ray_jobs.prostate.model import build_model
from dhctl.ray_jobs.prostate.ordinal import decode, ordinal_loss
from dhctl.ray_jobs.prostate.preparation import read_cohort
from dhctl.ray_jobs.prostate.scores import quadratic_kappa
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.stain import jittered, normalised
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.task import Metrics, Part, Watched

WATCHED = Watched("validation_qwk")


@dataclass(frozen=True)
class Grading:
    """Multiple-instance learning of the grade of a slide; see training.task.Task."""

    settings: Settings
    shards: Store
    watched: Watched = WATCHED

    def build_model(self) -> nn.Module:
        """See Task."""
        return build_model(self.settings.encoder)

    def dataset(self, part: Part) -> Bags:
        """See Task."""
        return Bags(read_cohort(self.shards, self.settings).part(part), self.shards, self.settings)

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        """See Task."""
        bags: list[DrawnBag] = samples
        varied = [jittered(bag.tiles.to(device), torch.Generator().manual_seed(bag.seed)) for bag in bags]
        grades = torch.tensor([bag.grade for bag in bags], device=device)
        return ordinal_loss(model(torch.stack(varied)).float(), grades) / len(bags)

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> tuple[int, int]:
        """The grade of the slide, and the grade the model gives it."""
        tiles = normalised(sample.tiles.to(device))
        return sample.grade, int(decode(model(tiles[None]))[0])

    def metrics(self, findings: Sequence[tuple[int, int]]) -> Metrics:
        """See Task."""
        return {"validation_qwk": quadratic_kappa([true for true, _ in findings], [said for _, said in findings])}
