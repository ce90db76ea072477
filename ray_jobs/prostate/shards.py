"""Shards: the tiles of one slide as one tar in webdataset's layout, and a note beside it that says what is inside.

A shard's name is a digest of the slide's files (names, sizes, times of change) and of the settings that shape tiles:
an unchanged slide is never cut twice, and other settings never meet old tiles. The note is written after the tar, so a
note means a complete shard. One tar a slide, because multiple-instance learning draws whole slides at random.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.pipeline.tars import pack
from dhctl.ray_jobs.prostate.labels import LocatedCase
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.storage import Store

TILE_SETTINGS = (
    "tile_px",
    "tile_um_per_px",
    "mask_um_per_px",
    "tissue_share",
    "max_tiles",
    "tile_format",
    "assumed_um_per_px",
)
"""Settings that change what is in a shard."""

FORMAT = "1"
"""Raised when tiles of the same settings come out differently."""


@dataclass(frozen=True)
class ShardNote:
    """What a shard holds."""

    key: str
    """Name of the shard, without `.tar`."""
    slide: str
    slide_sha256: str
    """Of the content of the slide's files."""
    tar_sha256: str
    tiles: int
    um_per_px: float
    """Resolution of level 0 that was used."""
    note: str | None
    """How that was assumed, where the slide does not say it."""
    mean_rgb: tuple[float, float, float]
    """Mean colour of the tiles, 0 to 255: what the baseline sees."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**content, "mean_rgb": tuple(content["mean_rgb"])})


@dataclass(frozen=True)
class Bag:
    """A slide that is ready for training: its shard, grade, patient and part of the split."""

    shard: ShardNote
    patient: str
    grade: int
    part: Part

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**content, "shard": ShardNote.from_json(content["shard"])})


def shard_key(located: LocatedCase, settings: Settings) -> str:
    """Name of the shard of this slide under these settings."""
    what = [FORMAT, located.case.slide, located.files, settings.digest(*TILE_SETTINGS)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def write_shard(store: Store, note: ShardNote, tiles: NDArray[np.uint8], tile_format: str) -> ShardNote:
    """Write the tar, then its note; returns the note with the tar's digest."""
    tar = pack(tiles, tile_format)
    complete = ShardNote(**{**asdict(note), "tar_sha256": hashlib.sha256(tar).hexdigest()})
    store.write(f"{note.key}.tar", tar)
    store.write_json(f"{note.key}.json", asdict(complete))
    return complete
