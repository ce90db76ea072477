"""What each training step reads: the slides of an epoch in a seeded order, dealt to ranks, and tiles of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import Bag, unpack
from dhctl.ray_jobs.storage import Store

STEPS_AHEAD = 3
"""Steps that are read before they are used; each is in memory."""


@dataclass(frozen=True)
class Draw:
    """A slide in a step: which of its tiles, and the seed of their variation."""

    bag: Bag
    tiles: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class DrawnBag:
    """Tiles (n, px, px, 3) of bytes of one slide, its grade, and the seed of their variation."""

    tiles: torch.Tensor
    grade: int
    seed: int


class BagReader:
    """Reads tiles of shards; with `keep`, each shard is read once and stays in memory decoded."""

    def __init__(self, shards: Store, keep: bool) -> None:
        self._shards = shards
        self._kept: dict[str, NDArray[np.uint8]] | None = {} if keep else None

    def read(self, key: str, tiles: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The tiles at these positions of a shard, (n, px, px, 3)."""
        if self._kept is None:
            return unpack(self._shards.read(f"{key}.tar"), tiles)
        if key not in self._kept:
            self._kept[key] = unpack(self._shards.read(f"{key}.tar"))
        return self._kept[key][tiles]


def read_steps(steps: Sequence[Sequence[Draw]], reader: BagReader, settings: Settings) -> Iterator[list[DrawnBag]]:
    """Read the draws of each step; with loader_threads, the next steps are read while one is in use."""

    def read(draw: Draw) -> DrawnBag:
        tiles = reader.read(draw.bag.shard.key, draw.tiles)
        return DrawnBag(torch.from_numpy(tiles), draw.bag.grade, draw.seed)

    if not settings.loader_threads:
        yield from ([read(draw) for draw in step] for step in steps)
        return
    # Threads, not DataLoader's processes: decoding lets go of the interpreter lock, a fork would copy the locks of Ray
    # and of pyarrow's S3 client as they are, and a spawn would import torch anew in each epoch.
    with ThreadPoolExecutor(settings.loader_threads) as pool:
        ahead: deque[list[Future[DrawnBag]]] = deque()
        for step in steps:
            ahead.append([pool.submit(read, draw) for draw in step])
            if len(ahead) > STEPS_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]


def batch_size(slides: int, world_size: int, settings: Settings) -> int:
    """Slides in each step over all ranks. Raises RefusedInputError where some rank would have none."""
    size = min(settings.batch_slides, slides)
    if size < world_size:
        raise RefusedInputError(
            f"{slides} training slides in batches of {settings.batch_slides} do not give each of {world_size} workers "
            "one; lower job.workers, or raise batch_slides"
        )
    return size


def epoch_steps(bags: Sequence[Bag], epoch: int, rank: int, world_size: int, settings: Settings) -> list[list[Draw]]:
    """What this rank draws in each step of an epoch.

    The steps over all ranks together are the same for every world size and after every resume: they follow from the
    seed and the epoch alone. The slides that do not fill a last batch sit this pass out.
    """
    size = batch_size(len(bags), world_size, settings)
    steps = []
    for passed in range(epoch * settings.draws_per_epoch, (epoch + 1) * settings.draws_per_epoch):
        order = np.random.default_rng([settings.seed, passed]).permutation(len(bags))
        for start in range(0, len(bags) - size + 1, size):
            mine = order[start : start + size][rank::world_size]
            steps.append([_draw(bags[index], int(index), passed, settings) for index in mine])
    return steps


def evaluation_draw(bag: Bag, settings: Settings) -> Draw:
    """Evenly spaced tiles of a slide, at most eval_tiles, without variation."""
    count = min(bag.shard.tiles, settings.eval_tiles)
    return Draw(bag, np.linspace(0, bag.shard.tiles - 1, count).round().astype(np.int64), seed=0)


def _draw(bag: Bag, index: int, passed: int, settings: Settings) -> Draw:
    rng = np.random.default_rng([settings.seed, passed, index])
    tiles = rng.choice(bag.shard.tiles, settings.bag_tiles, replace=bag.shard.tiles < settings.bag_tiles)
    return Draw(bag, tiles.astype(np.int64), int(rng.integers(2**31)))
