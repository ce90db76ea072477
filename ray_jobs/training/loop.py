"""The training loop: one code for Ray Train and for a process without Ray, so that the two can be compared."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dhctl.ray_jobs.training import checkpoint, randomness, stopping
from dhctl.ray_jobs.training.losses import Losses
from dhctl.ray_jobs.training.progress import Progress, begin
from dhctl.ray_jobs.training.runner import Runner
from dhctl.ray_jobs.training.sampler import Draw, Sampler, read_steps
from dhctl.ray_jobs.training.schedule import learning_rate
from dhctl.ray_jobs.training.settings import TrainingSettings
from dhctl.ray_jobs.training.task import Dataset, Task


@dataclass(frozen=True)
class Course:
    """What stays the same from the first epoch to the last."""

    runner: Runner
    task: Task
    settings: TrainingSettings
    sampler: Sampler
    train: Dataset
    validation: Dataset


def train(runner: Runner, task: Task, settings: TrainingSettings) -> None:
    """Train from the newest whole checkpoint, or from the start, until the last epoch or until patience is over.

    After each epoch comes a report with a checkpoint. An interrupted and resumed training takes the same steps as one
    that was not. Raises RefusedInputError (fewer samples than ranks, a checkpoint of another model) and JobStoppedError
    (a loss that is not finite).
    """
    data = task.dataset("train")
    sampler = Sampler.of(settings, len(data), runner.world_size)
    course = Course(runner, task, settings, sampler, data, task.dataset("validation"))
    progress = begin(runner, task, settings, sampler)
    while len(progress.history) < settings.epochs:
        if stopping.is_over(progress.history, task.watched, settings.patience):
            return
        metrics = _one_epoch(course, progress)
        metrics.update(validated(course, progress.bare))
        progress.close_epoch(metrics, task.watched, keep_best=runner.rank == 0)
        _report(course, progress)


def validated(course: Course, model: nn.Module) -> dict[str, float]:
    """The task's metrics of the validation part, of which each rank does its share."""
    runner = course.runner
    own = range(runner.rank, len(course.validation), runner.world_size)
    steps = [[Draw(index, None)] for index in own]
    findings: list[tuple[int, Any]] = []
    model.eval()
    with torch.no_grad(), precision(runner.device):
        samples = read_steps(steps, course.validation, course.settings.loader_threads)
        for index, (sample,) in zip(own, samples, strict=True):
            findings.append((index, course.task.validate(model, sample, runner.device)))
    everyones = sorted(runner.gathered(findings), key=lambda finding: finding[0])
    return {name: float(value) for name, value in course.task.metrics([found for _, found in everyones]).items()}


def precision(device: torch.device) -> torch.autocast:
    """bf16 on GPUs that have it, full precision elsewhere."""
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=capable)


def _one_epoch(course: Course, progress: Progress) -> dict[str, float]:
    """All steps of an epoch; loss is the mean over all ranks' samples, samples_per_s counts samples of all ranks."""
    runner, settings, sampler = course.runner, course.settings, course.sampler
    epoch = len(progress.history) + 1
    steps = sampler.steps(progress.samples_seen, runner.rank, runner.world_size)
    losses = Losses(runner, epoch)
    rate = 0.0
    progress.model.train()
    began = time.perf_counter()
    for samples in read_steps(steps, course.train, settings.loader_threads):
        rate = learning_rate(progress.samples_seen, settings.epochs * sampler.per_epoch, settings.learning_rate)
        for group in progress.optimizer.param_groups:
            group["lr"] = rate
        losses.add(_one_step(course, progress, samples), len(samples))
        progress.samples_seen += sampler.batch
    total = losses.total()
    loop_s = time.perf_counter() - began
    return {
        "epoch": float(epoch),
        "loss": total / sampler.per_epoch,
        "samples_per_s": sampler.per_epoch / loop_s,
        "loop_s": loop_s,
        "learning_rate": rate,
        "workers": float(runner.world_size),
    }


def _one_step(course: Course, progress: Progress, samples: list[Any]) -> torch.Tensor:
    """One optimiser step; returns the mean loss of this rank's samples."""
    runner = course.runner
    with precision(runner.device):
        loss = course.task.step(progress.model, samples, runner.device)
    progress.optimizer.zero_grad(set_to_none=True)
    # Ranks' gradients are averaged: this factor makes that the mean over the global batch, even when ranks hold
    # different numbers of samples.
    (loss * (len(samples) * runner.world_size / course.sampler.batch)).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(progress.model.parameters(), course.settings.largest_gradient)
    progress.optimizer.step()
    return loss


def _report(course: Course, progress: Progress) -> None:
    runner, metrics = course.runner, progress.history[-1]
    generators = runner.gathered([randomness.captured(runner.device)])
    if runner.rank != 0:
        runner.report(metrics, None)
        return
    with tempfile.TemporaryDirectory(prefix="dhctl-checkpoint-") as folder:
        checkpoint.write(Path(folder), progress.state(course.sampler, generators))
        runner.report(metrics, Path(folder))
