"""Shards: the tiles of one slide as one tar in webdataset's layout, and a note beside it that says what is inside.

A shard's name is a digest of the slide's files (names, sizes, times of change) and of the settings that shape tiles:
an unchanged slide is never cut twice, and other settings never meet old tiles. The note is written after the tar, so a
note means a complete shard. One tar a slide, because multiple-instance learning draws whole slides at random.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dhctl.ray_jobs.prostate.labels import LocatedCase
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.split import Part
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

JPEG_QUALITY = 90


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


def pack(tiles: NDArray[np.uint8], tile_format: str) -> bytes:
    """A tar of tiles (n, px, px, 3) named 00000.jpg or 00000.npy and on; the same tiles give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index, tile in enumerate(tiles):
            content = io.BytesIO()
            if tile_format == "jpg":
                Image.fromarray(tile).save(content, "JPEG", quality=JPEG_QUALITY)
            else:
                np.save(content, tile, allow_pickle=False)
            entry = tarfile.TarInfo(f"{index:05d}.{tile_format}")
            entry.size = content.tell()
            content.seek(0)
            tar.addfile(entry, content)
    return buffer.getvalue()


def unpack(content: bytes, wanted: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Tiles (n, px, px, 3) of a tar, or those at the positions `wanted`; only these are decoded."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = tar.getmembers()
        chosen = entries if wanted is None else [entries[index] for index in wanted]
        return np.stack([_tile(tar, entry) for entry in chosen])


def _tile(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> NDArray[np.uint8]:
    stream = tar.extractfile(entry)
    if stream is None:
        raise ValueError(f"{entry.name} in a shard is not a file; delete the shards folder and prepare again")
    content = io.BytesIO(stream.read())
    if entry.name.endswith(".npy"):
        tile: NDArray[np.uint8] = np.load(content, allow_pickle=False)
        return tile
    return np.asarray(Image.open(content).convert("RGB"))
