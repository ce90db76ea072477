"""A training that is bound by computing: on dhctl's core, or with `--bare` as a loop that anyone would write."""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dhctl.ray_jobs import training
from dhctl.ray_jobs.report import progress

SAMPLES, PIXELS, BATCH, EPOCHS = 1536, 64, 64, 4
LOSS = training.Watched("validation_loss", best="min")


class Pictures:
    """Random pictures, in memory."""

    def __init__(self, count):
        self._pictures = np.random.default_rng(0).normal(size=(count, 3, PIXELS, PIXELS)).astype(np.float32)

    def __len__(self):
        return len(self._pictures)

    def read(self, index, draw):
        """One of them, and a label."""
        return torch.from_numpy(self._pictures[index]), float(index % 2)


@dataclass(frozen=True)
class Convolutions:
    """Four layers of convolution."""

    watched: training.Watched = LOSS

    def build_model(self):
        """About 0.3 GFLOP a picture forward."""
        layers, width = [], 3
        for wide, stride in ((32, 1), (64, 2), (64, 1), (64, 2)):
            layers += [nn.Conv2d(width, wide, 3, stride=stride, padding=1), nn.ReLU()]
            width = wide
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))

    def dataset(self, part):
        """Many to train on, few to validate."""
        return Pictures(SAMPLES if part == "train" else 2)

    def step(self, model, samples, device):
        """Mean binary cross entropy."""
        pictures = torch.stack([picture for picture, _ in samples]).to(device)
        labels = torch.tensor([label for _, label in samples], device=device)
        return nn.functional.binary_cross_entropy_with_logits(model(pictures)[:, 0].float(), labels)

    def validate(self, model, sample, device):
        """The loss of one picture."""
        return float(self.step(model, [sample], device))

    def metrics(self, findings):
        """Their mean."""
        return {"validation_loss": sum(findings) / len(findings)}


def bare():
    """The same steps without the core, without Ray, in one process and one thread."""
    torch.set_num_threads(1)
    task = Convolutions()
    data, model = task.dataset("train"), task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        order = torch.randperm(len(data)).tolist()
        for start in range(0, len(data), BATCH):
            loss = task.step(model, [data.read(i, 0) for i in order[start : start + BATCH]], torch.device("cpu"))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        rate = len(data) / (time.perf_counter() - began)
        progress("train", epoch + 1, EPOCHS, {"loss": loss.item(), "samples_per_s": rate})


if "--bare" in sys.argv:
    bare()
else:
    settings = training.read_settings(training.TrainingSettings, epochs=EPOCHS, batch=BATCH, learning_rate=1e-3)
    training.run(Convolutions(), settings)
