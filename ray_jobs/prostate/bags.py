"""Slides as bags of tiles, read from their shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhctl.ray_jobs.data.staged import cached
from dhctl.ray_jobs.pipeline.tars import unpack
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import Bag
from dhctl.ray_jobs.storage import Store


@dataclass(frozen=True)
class DrawnBag:
    """Tiles (n, px, px, 3) of bytes of one slide, its grade, and the seed of their variation."""

    tiles: torch.Tensor
    grade: int
    seed: int


class Bags:
    """The slides of one part, see training.task.Dataset.

    Without loader_threads each shard is read once and its tiles stay in memory.
    """

    def __init__(self, bags: Sequence[Bag], shards: Store, settings: Settings) -> None:
        self._bags, self._shards, self._settings = bags, cached(shards), settings
        self._kept: dict[str, NDArray[np.uint8]] | None = {} if settings.loader_threads == 0 else None

    def __len__(self) -> int:
        """How many slides."""
        return len(self._bags)

    def read(self, index: int, draw: int | None) -> DrawnBag:
        """Tiles of a slide: drawn anew from the seed, or evenly spaced and without variation."""
        bag = self._bags[index]
        if draw is None:
            return DrawnBag(self._tiles(bag, _spaced(bag.shard.tiles, self._settings.eval_tiles)), bag.grade, seed=0)
        rng = np.random.default_rng(draw)
        chosen = drawn(bag.shard.tiles, self._settings.bag_tiles, rng)
        return DrawnBag(self._tiles(bag, chosen), bag.grade, int(rng.integers(2**31)))

    def _tiles(self, bag: Bag, positions: NDArray[np.int64]) -> torch.Tensor:
        key = bag.shard.key
        if self._kept is None:
            return torch.from_numpy(unpack(self._shards.read(f"{key}.tar"), positions))
        if key not in self._kept:
            self._kept[key] = unpack(self._shards.read(f"{key}.tar"))
        return torch.from_numpy(self._kept[key][positions])


def drawn(tiles: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of a training step's tiles: each at most once where there are enough."""
    return rng.choice(tiles, wanted, replace=tiles < wanted).astype(np.int64)


def _spaced(tiles: int, at_most: int) -> NDArray[np.int64]:
    """Evenly spaced positions, the first and the last among them."""
    return np.linspace(0, tiles - 1, min(tiles, at_most)).round().astype(np.int64)
