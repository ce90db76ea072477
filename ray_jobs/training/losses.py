"""The losses of an epoch's steps, and the end of training when one of them is not a number."""

from __future__ import annotations

import torch

from dhctl.ray_jobs.environment import JobStoppedError
from dhctl.ray_jobs.training.runner import Runner

CHECKED_EVERY = 50
"""Steps between looks at the losses: each look waits for the GPU and for all ranks."""


class Losses:
    """Sums up losses on all ranks. They stay on the device until looked at."""

    def __init__(self, runner: Runner, epoch: int) -> None:
        self._runner, self._epoch = runner, epoch
        self._steps, self._sum = 0, 0.0
        self._waiting: list[tuple[torch.Tensor, int]] = []

    def add(self, loss: torch.Tensor, samples: int) -> None:
        """The mean loss over this rank's samples of a step. Raises JobStoppedError, some steps later, if it was NaN."""
        self._waiting.append((loss.detach(), samples))
        if len(self._waiting) >= CHECKED_EVERY:
            self._check()

    def total(self) -> float:
        """Sum over the samples of all ranks. Raises JobStoppedError."""
        self._check()
        return float(sum(self._runner.gathered([self._sum])))

    def _check(self) -> None:
        values = torch.stack([loss.float() for loss, _ in self._waiting]).tolist() if self._waiting else []
        bad = [step for step, value in enumerate(values, start=self._steps + 1) if not abs(value) < float("inf")]
        # All ranks look after the same step, so that they stop together and none waits for another's gradients.
        found = self._runner.gathered(bad[:1])
        if found:
            raise JobStoppedError(
                f"the loss is not a finite number in epoch {self._epoch}, step {min(found)}; lower learning_rate or "
                "largest_gradient in job.params, or look for samples that are empty or not finite (the checkpoint of "
                "the epoch before is kept)"
            )
        self._sum += sum(value * samples for value, (_, samples) in zip(values, self._waiting, strict=True))
        self._steps += len(values)
        self._waiting.clear()
