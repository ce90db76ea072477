"""A training epoch's reading of the prostate job: from shards, beside the same tiles read from the slides themselves.

The slides are the job's phantoms, pyramidal TIFFs with JPEG tiles, small beside real ones. Both sides know the tissue
beforehand, draw the same tiles, and keep nothing in memory between two draws.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.prostate.bags import Bags, drawn
from dhctl.ray_jobs.prostate.phantoms import PhantomTask, plan_phantoms, write_phantom, write_table
from dhctl.ray_jobs.prostate.preparation import prepare
from dhctl.ray_jobs.prostate.settings import settings_from
from dhctl.ray_jobs.prostate.shards import Bag
from dhctl.ray_jobs.prostate.slides import open_slide
from dhctl.ray_jobs.prostate.tiles import read_tiles, tissue_corners
from dhctl.ray_jobs.storage import open_store

PATIENTS, SEED, EPOCHS = 24, 7, 3


@dataclass(frozen=True)
class Readings:
    """Slides per second, a bag of tiles drawn from each."""

    shards: float
    slides: float


def slide_readings(folder: Path, tile_format: str) -> Readings:
    """Measures in an empty folder; `tile_format` is that of the shards."""
    data, shards = open_store(str(folder / "slides")), open_store(str(folder / "shards"))
    settings = settings_from({"seed": SEED, "tile_format": tile_format, "loader_threads": 1})
    phantoms = plan_phantoms(PATIENTS, SEED)
    for phantom in phantoms:
        write_phantom(PhantomTask(phantom, data))
    write_table(data, phantoms)
    with redirect_stdout(io.StringIO()):  # the job's own lines of progress
        bags = prepare(data, shards, settings, InThisProcess()).bags
    from_shards = Bags(bags, shards, settings)
    files = {Path(file.key).stem: folder / "slides" / file.key for file in data.files()}
    corners = {}
    for bag in bags:
        with open_slide(files[bag.shard.slide], settings.assumed_um_per_px) as slide:
            corners[bag.shard.slide] = tissue_corners(slide, settings)

    def from_slide(bag: Bag, draw: int) -> None:
        chosen = drawn(bag.shard.tiles, settings.bag_tiles, np.random.default_rng(draw))
        with open_slide(files[bag.shard.slide], settings.assumed_um_per_px) as slide:
            read_tiles(slide, [corners[bag.shard.slide][position] for position in chosen], settings)

    return Readings(
        shards=_rate(len(bags), from_shards.read),
        slides=_rate(len(bags), lambda index, draw: from_slide(bags[index], draw)),
    )


def _rate(bags: int, read: Callable[[int, int], object]) -> float:
    began = time.monotonic()
    for epoch in range(EPOCHS):
        for index in range(bags):
            read(index, epoch * bags + index)
    return EPOCHS * bags / (time.monotonic() - began)
