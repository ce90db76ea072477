"""The job's training as the training core wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from dhctl.ray_jobs.nodules.cohort import Cohort
from dhctl.ray_jobs.nodules.froc import ScanFinding, cpm, mean_dice
from dhctl.ray_jobs.nodules.inference import finding
from dhctl.ray_jobs.nodules.model import build_model, network_input
from dhctl.ray_jobs.nodules.patches import ScanDataset
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.task import Part, Watched


@dataclass(frozen=True)
class NoduleTask:
    """Segmentation of nodules, see training.task.Task."""

    cohort: Cohort
    shards: Store
    settings: Settings
    watched: Watched = field(default=Watched("validation_cpm", "max"))

    def build_model(self) -> nn.Module:
        """See Task."""
        return build_model(self.settings)

    def dataset(self, part: Part) -> ScanDataset:
        """See Task."""
        return ScanDataset(self.cohort.part(part), self.shards, self.settings)

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        """See Task. Dice is taken over all patches of this rank together, not over each.

        Most patches hold little or no nodule: Dice of each alone rewards to find nothing, and training collapses.
        """
        hu = torch.from_numpy(np.concatenate([sample.hu for sample in samples]))
        nodule = torch.from_numpy(np.concatenate([sample.nodule for sample in samples])).to(device)
        logits = model(network_input(hu, device))
        loss: torch.Tensor = self._loss(logits.float(), nodule[:, None].float())
        return loss

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> ScanFinding:
        """See Task."""
        return finding(model, sample, self.settings, device)

    def metrics(self, findings: Sequence[Any]) -> Mapping[str, float]:
        """See Task."""
        return {"validation_dice": mean_dice(findings), "validation_cpm": cpm(findings)}

    @cached_property
    def _loss(self) -> nn.Module:
        from monai.losses import DiceCELoss

        loss: nn.Module = DiceCELoss(sigmoid=True, batch=True)
        return loss
