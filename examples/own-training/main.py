"""A training of one's own: a small network that tells malignant from benign nuclei by 10 measurements of each.

What is special to it is below: model, data, step, metric. Workers, checkpoints, going on after a loss, early stop and
progress are dhctl's.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dhctl.ray_jobs import training

ACCURACY = training.Watched("validation_accuracy", best="max")


class Settings(training.TrainingSettings):
    """What job.params may say beside the settings that every training has."""

    hidden: int = 32


@dataclass(frozen=True)
class Rows:
    """The rows of one part: a training part is varied a little each time a row is drawn."""

    features: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def read(self, index, draw):
        """One row; `draw` seeds its variation, None is without."""
        noise = 0 if draw is None else np.random.default_rng(draw).normal(0, 0.1, self.features.shape[1])
        return torch.tensor(self.features[index] + noise, dtype=torch.float32), float(self.labels[index])


@dataclass(frozen=True)
class Nuclei:
    """Every fifth row is for validation."""

    settings: Settings
    table: Path
    watched: training.Watched = ACCURACY

    def build_model(self):
        """The network, with fresh weights."""
        hidden = self.settings.hidden
        return nn.Sequential(nn.Linear(10, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 1))

    def dataset(self, part):
        """The samples of `train` or `validation`."""
        rows = np.genfromtxt(self.table, delimiter=",", skip_header=3)
        held_out = np.arange(len(rows)) % 5 == 0
        mean, spread = rows[~held_out, :-1].mean(axis=0), rows[~held_out, :-1].std(axis=0)
        chosen = rows[held_out if part == "validation" else ~held_out]
        return Rows((chosen[:, :-1] - mean) / spread, chosen[:, -1])

    def step(self, model, samples, device):
        """The mean loss of some samples."""
        features = torch.stack([features for features, _ in samples]).to(device)
        labels = torch.tensor([label for _, label in samples], device=device)
        return nn.functional.binary_cross_entropy_with_logits(model(features)[:, 0].float(), labels)

    def validate(self, model, sample, device):
        """Whether the model is right about one sample."""
        features, label = sample
        return (model(features.to(device)[None]).item() > 0) == (label == 1)

    def metrics(self, findings):
        """From what `validate` gave for each sample."""
        return {"validation_accuracy": sum(findings) / len(findings)}


settings = training.read_settings(Settings, epochs=20, draws_per_epoch=5, batch=32, learning_rate=3e-3, patience=8)
training.run(Nuclei(settings, Path(os.environ["DHCTL_DATA"], "nuclei.csv")), settings)
