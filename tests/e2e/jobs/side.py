"""An elastic training that says of each epoch on how many workers it ran: python side.py NAME SECONDS_A_STEP EPOCHS."""

import math
import os
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn

from dhctl.ray_jobs import training

LOSS = training.Watched("validation_loss", best="min")


class Points:
    """Eight points."""

    def __len__(self):
        return 8

    def read(self, index, draw):
        """A point and its side."""
        return torch.tensor([float(index)]), float(index > 3)


@dataclass(frozen=True)
class Slow:
    """Two samples a step, each of which takes a while."""

    seconds: float
    watched: training.Watched = LOSS

    def build_model(self):
        """One neuron."""
        return nn.Linear(1, 1)

    def dataset(self, part):
        """The same in both parts."""
        return Points()

    def step(self, model, samples, device):
        """Sleep for each sample, as a larger network would compute; a time that is no number makes the loss none."""
        ill = math.isnan(self.seconds)
        time.sleep(0 if ill else self.seconds * len(samples))
        points, sides = torch.stack([point for point, _ in samples]), torch.tensor([side for _, side in samples])
        return (math.nan if ill else 1) * nn.functional.binary_cross_entropy_with_logits(model(points)[:, 0], sides)

    def validate(self, model, sample, device):
        """The loss of a point."""
        return float(nn.functional.binary_cross_entropy_with_logits(model(sample[0])[0], torch.tensor(sample[1])))

    def metrics(self, findings):
        """Their mean."""
        return {"validation_loss": sum(findings) / len(findings)}


name, seconds, epochs = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
os.environ["DHCTL_OUTPUT"] += f"/{name}"
settings = training.read_settings(
    training.TrainingSettings, epochs=epochs, batch=2, learning_rate=1e-2, resize_interval_s=5
)
found = training.run(Slow(seconds), settings)
print(f"{name} trained on", [int(epoch["workers"]) for epoch in found["history"]], "ended at", time.time(), flush=True)
