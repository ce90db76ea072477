"""The job's training as the training core wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dhctl.ray_jobs.skin.augmentation import resized, varied
from dhctl.ray_jobs.skin.losses import class_weights, focal_loss, weighted_loss
from dhctl.ray_jobs.skin.model import build_model, network_input
from dhctl.ray_jobs.skin.preparation import Cohort, read_cohort
from dhctl.ray_jobs.skin.scores import balanced_accuracy, macro_auc
from dhctl.ray_jobs.skin.settings import Settings
from dhctl.ray_jobs.skin.shards import ShardReader, StoredPicture
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.task import Part, Watched

WATCHED = Watched("validation_balanced_accuracy")


@dataclass(frozen=True)
class Sample:
    """What the network sees of a picture, (input_px, input_px, 3) of bytes, and its class."""

    tile: NDArray[np.uint8]
    label: int


@dataclass(frozen=True)
class Finding:
    """The class of a validation picture, and the probability that the model gives to each class."""

    label: int
    probabilities: tuple[float, ...]


class SquareDataset:
    """Squares of pictures, see training.task.Dataset."""

    def __init__(self, pictures: Sequence[StoredPicture], shards: Store, settings: Settings) -> None:
        self._pictures, self._settings = pictures, settings
        self._reader = ShardReader(shards)

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, index: int, draw: int | None) -> Sample:
        """A varied part of the square, or without `draw` the whole of it."""
        picture, settings = self._pictures[index], self._settings
        tile = self._reader.read(picture)
        if draw is None:
            return Sample(resized(tile, settings.input_px), picture.label)
        return Sample(varied(tile, settings.input_px, settings.smallest_crop, draw), picture.label)


@dataclass(frozen=True)
class Classification:
    """Classification of lesions, see training.task.Task."""

    settings: Settings
    shards: Store
    watched: Watched = WATCHED

    @cached_property
    def cohort(self) -> Cohort:
        """The pictures; read by each worker, because tens of thousands are much to send along."""
        return read_cohort(self.shards, self.settings)

    @cached_property
    def weights(self) -> torch.Tensor:
        """Weight of each class in the loss."""
        labels = [picture.label for picture in self.cohort.part("train")]
        return class_weights(labels, len(self.cohort.classes))

    def build_model(self) -> nn.Module:
        """See Task."""
        return build_model(self.settings.encoder, len(self.cohort.classes))

    def dataset(self, part: Part) -> SquareDataset:
        """See Task."""
        return SquareDataset(self.cohort.part(part), self.shards, self.settings)

    def step(self, model: nn.Module, samples: list[Any], device: torch.device) -> torch.Tensor:
        """See Task."""
        tiles = torch.from_numpy(np.stack([sample.tile for sample in samples])).to(device)
        labels = torch.tensor([sample.label for sample in samples], device=device)
        logits = model(network_input(tiles)).float()
        if self.settings.loss == "focal":
            return focal_loss(logits, labels)
        return weighted_loss(logits, labels, self.weights.to(device))

    def validate(self, model: nn.Module, sample: Any, device: torch.device) -> Finding:
        """See Task."""
        return Finding(sample.label, tuple(predicted(model, sample, device).tolist()))

    def metrics(self, findings: Sequence[Any]) -> Mapping[str, float]:
        """See Task."""
        labels = np.array([finding.label for finding in findings])
        probabilities = np.array([finding.probabilities for finding in findings])
        return {
            "validation_balanced_accuracy": balanced_accuracy(labels, probabilities.argmax(axis=1)),
            "validation_macro_auc": macro_auc(labels, probabilities),
        }


def predicted(model: nn.Module, sample: Sample, device: torch.device) -> NDArray[np.float64]:
    """Probability of each class (classes,): the mean over the picture and its mirror image."""
    tile = torch.tensor(sample.tile, device=device)
    both = network_input(torch.stack([tile, tile.flip(1)]))
    mean: NDArray[np.float64] = model(both).float().softmax(dim=1).mean(dim=0).double().cpu().numpy()
    return mean
