"""The training loop: one code for Ray Train and for a process without Ray, so that the two can be compared."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dhctl.ray_jobs.prostate.bags import BagReader, DrawnBag, batch_size, epoch_steps, evaluation_draw, read_steps
from dhctl.ray_jobs.prostate.model import build_model
from dhctl.ray_jobs.prostate.ordinal import decode, ordinal_loss
from dhctl.ray_jobs.prostate.runner import STATE_FILE, Metrics, Runner
from dhctl.ray_jobs.prostate.scores import quadratic_kappa
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import Bag
from dhctl.ray_jobs.prostate.stain import jittered, normalised
from dhctl.ray_jobs.storage import Store

WARM_UP_SHARE = 0.1
"""Share of the schedule in which the learning rate rises."""

LARGEST_GRADIENT = 2.0
"""Gradients are cut to this norm: a small batch of bags has outliers."""


@dataclass
class Training:
    """What changes while training, and what a checkpoint holds of it."""

    model: nn.Module
    """As the runner wrapped it."""
    optimizer: torch.optim.Optimizer
    epochs_done: int
    history: list[dict[str, float]]
    """The metrics of each epoch so far."""

    @property
    def bare(self) -> nn.Module:
        """The model without DistributedDataParallel around it."""
        inner = getattr(self.model, "module", self.model)
        assert isinstance(inner, nn.Module)
        return inner

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epochs_done": self.epochs_done,
            "history": self.history,
        }


def train(
    runner: Runner, train_bags: Sequence[Bag], validation_bags: Sequence[Bag], shards: Store, settings: Settings
) -> None:
    """Train from the last checkpoint, or from the start, to settings.epochs; report and checkpoint after each epoch.

    An interrupted and resumed run takes the same steps as one that was not. Raises RefusedInputError for fewer slides
    than ranks.
    """
    reader = BagReader(shards, keep=settings.loader_threads == 0)
    training = _begin(runner, settings)
    for epoch in range(training.epochs_done, settings.epochs):
        metrics = _one_epoch(runner, training, train_bags, epoch, reader, settings)
        own = validation_bags[runner.rank :: runner.world_size]
        predicted = predict(training.bare, own, reader, settings, runner.device)
        pairs = runner.gathered([(bag.grade, grade) for bag, grade in zip(own, predicted, strict=True)])
        metrics["validation_qwk"] = quadratic_kappa([true for true, _ in pairs], [said for _, said in pairs])
        training.epochs_done = epoch + 1
        training.history.append(metrics)
        _report(runner, training, metrics)


def predict(
    model: nn.Module, bags: Sequence[Bag], reader: BagReader, settings: Settings, device: torch.device
) -> list[int]:
    """The grade of each slide."""
    model.eval()
    grades: list[int] = []
    steps = [[evaluation_draw(bag, settings)] for bag in bags]
    with torch.no_grad(), _precision(device):
        for step in read_steps(steps, reader, settings):
            tiles = normalised(step[0].tiles.to(device))
            grades.append(int(decode(model(tiles[None]))[0]))
    return grades


def learning_rate(seen: int, total: int, peak: float) -> float:
    """One cycle over slides seen of `total`: linear rise, then half a cosine down to 1 % of the peak."""
    rise = WARM_UP_SHARE * total
    if seen < rise:
        return peak * (seen + 1) / (rise + 1)
    share = (seen - rise) / max(1.0, total - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def _begin(runner: Runner, settings: Settings) -> Training:
    torch.manual_seed(settings.seed)  # the same weights on all ranks and after any number of restarts
    model = runner.wrapped(build_model(settings.encoder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    training = Training(model, optimizer, epochs_done=0, history=[])
    with runner.latest() as folder:
        if folder is not None:
            state = torch.load(folder / STATE_FILE, map_location=runner.device, weights_only=True)
            training.bare.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            training.epochs_done, training.history = state["epochs_done"], state["history"]
    return training


def _one_epoch(
    runner: Runner, training: Training, bags: Sequence[Bag], epoch: int, reader: BagReader, settings: Settings
) -> dict[str, float]:
    """All steps of an epoch; loss is the mean over all ranks' slides, samples_per_s counts slides of all ranks."""
    size = batch_size(len(bags), runner.world_size, settings)
    steps = epoch_steps(bags, epoch, runner.rank, runner.world_size, settings)
    per_epoch = len(steps) * size
    training.model.train()
    loss_sum, rate = 0.0, 0.0
    began = time.perf_counter()
    for index, step in enumerate(read_steps(steps, reader, settings)):
        rate = learning_rate(epoch * per_epoch + index * size, settings.epochs * per_epoch, settings.learning_rate)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        loss_sum += _one_step(runner, training, step, size)
    loop_s = time.perf_counter() - began
    total_loss = sum(runner.gathered([loss_sum]))
    return {
        "epoch": float(epoch + 1),
        "loss": total_loss / per_epoch,
        "samples_per_s": per_epoch / loop_s,
        "loop_s": loop_s,
        "learning_rate": rate,
    }


def _one_step(runner: Runner, training: Training, step: Sequence[DrawnBag], global_size: int) -> float:
    """One optimiser step; returns the sum of the losses of this rank's slides."""
    varied = [jittered(b.tiles.to(runner.device), torch.Generator().manual_seed(b.seed)) for b in step]
    grades = torch.tensor([bag.grade for bag in step], device=runner.device)
    with _precision(runner.device):
        logits = training.model(torch.stack(varied))
    loss = ordinal_loss(logits.float(), grades)
    training.optimizer.zero_grad(set_to_none=True)
    # Ranks' gradients are averaged: world_size / global_size makes that the mean over the global batch, even when
    # ranks hold different numbers of slides.
    (loss * runner.world_size / global_size).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(training.model.parameters(), LARGEST_GRADIENT)
    training.optimizer.step()
    return float(loss.detach())


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def _report(runner: Runner, training: Training, metrics: Metrics) -> None:
    if runner.rank != 0:
        runner.report(metrics, None)
        return
    with tempfile.TemporaryDirectory(prefix="dhctl-checkpoint-") as folder:
        torch.save(training.state(), Path(folder) / STATE_FILE)
        runner.report(metrics, Path(folder))
