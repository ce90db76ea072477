"""What each training step reads: the samples in a seeded order that follows from how many were seen, dealt to ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.training.settings import TrainingSettings
from dhctl.ray_jobs.training.task import Dataset

STEPS_AHEAD = 3
"""Steps that are read before they are used; each is in memory."""


@dataclass(frozen=True)
class Draw:
    """A sample in a step, and the seed of its variation."""

    index: int
    seed: int | None


@dataclass(frozen=True)
class Sampler:
    """The order of training: the same global batches for every number of workers and after every resume."""

    seed: int
    samples: int
    """In the training part."""
    batch: int
    """Samples of a step over all ranks."""
    passes: int
    """Rounds over the training part in an epoch."""

    @classmethod
    def of(cls, settings: TrainingSettings, samples: int, world_size: int) -> Sampler:
        """The sampler of a training. Raises RefusedInputError where some rank would have nothing in a step."""
        batch = min(settings.batch, samples)
        if batch < world_size:
            raise RefusedInputError(
                f"{samples} training samples in batches of {settings.batch} do not give each of {world_size} workers "
                f"one; lower job.workers, or raise {settings.spoken('batch')}"
            )
        return cls(settings.seed, samples, batch, settings.draws_per_epoch)

    @property
    def per_epoch(self) -> int:
        """Samples seen in an epoch; those that do not fill a last batch sit that round out."""
        return self.samples // self.batch * self.batch * self.passes

    def steps(self, seen: int, rank: int, world_size: int) -> list[list[Draw]]:
        """What this rank draws in each step of the epoch that follows `seen` samples."""
        first = seen // self.per_epoch * self.passes
        steps = []
        for passed in range(first, first + self.passes):
            order = np.random.default_rng([self.seed, passed]).permutation(self.samples)
            for start in range(0, self.samples - self.batch + 1, self.batch):
                mine = order[start : start + self.batch][rank::world_size]
                steps.append([Draw(int(index), seed_from(self.seed, passed, int(index))) for index in mine])
        return steps


def seed_from(*numbers: int) -> int:
    """A seed below 2**63 that follows from all these numbers, unlike that of any others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def read_steps(steps: Sequence[Sequence[Draw]], dataset: Dataset, threads: int) -> Iterator[list[Any]]:
    """Read the samples of each step; with threads, the next steps are read while one is in use."""
    if not threads:
        yield from ([dataset.read(draw.index, draw.seed) for draw in step] for step in steps)
        return
    # Threads, not DataLoader's processes: decoding lets go of the interpreter lock, a fork would copy the locks of Ray
    # and of pyarrow's S3 client as they are, and a spawn would import torch anew in each epoch.
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[list[Future[Any]]] = deque()
        for step in steps:
            ahead.append([pool.submit(dataset.read, draw.index, draw.seed) for draw in step])
            if len(ahead) > STEPS_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]
