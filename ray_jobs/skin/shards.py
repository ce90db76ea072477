"""Shards: squares of some dozens of pictures as one tar in webdataset's layout, and a note that says what is inside.

A picture's shard follows from its name, so a new picture changes one shard. A shard's own name is a digest of its files
(names, sizes, times of change) and of the settings that shape squares: unchanged pictures are never read twice, and
other settings never meet old squares. The note is written after the tar, so a note means a complete shard.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.data.staged import cached
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.pipeline.tars import TileTar
from dhctl.ray_jobs.skin.pictures import Picture, Skipped
from dhctl.ray_jobs.skin.settings import Settings
from dhctl.ray_jobs.storage import Store, StoredFile

SQUARE_SETTINGS = ("store_px", "tile_format")
"""Settings that change what is in a shard."""

FORMAT = "1"
"""Raised when squares of the same settings come out differently."""


@dataclass(frozen=True)
class Square:
    """A picture in a shard."""

    image: str
    sha256: str
    """Of the picture's file."""
    mean_rgb: tuple[float, float, float]
    """Mean colour, 0 to 255: what the baseline sees."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**content, "mean_rgb": tuple(content["mean_rgb"])})


@dataclass(frozen=True)
class ShardNote:
    """What a shard holds."""

    key: str
    """Name of the shard, without `.tar`."""
    tar_sha256: str
    squares: tuple[Square, ...]
    """In the order of the tar."""
    skipped: tuple[Skipped, ...]
    """Pictures that could not be decoded."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        squares = tuple(Square.from_json(square) for square in content["squares"])
        return cls(content["key"], content["tar_sha256"], squares, tuple(Skipped(**row) for row in content["skipped"]))


@dataclass(frozen=True)
class StoredPicture:
    """A picture that is ready for training: where its square is, its class, lesion and part of the split."""

    image: str
    label: int
    lesion: str
    part: Part
    sha256: str
    mean_rgb: tuple[float, float, float]
    shard: str
    index: int
    """Position in the shard."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**content, "mean_rgb": tuple(content["mean_rgb"])})


def grouped(pictures: Sequence[Picture], shard_images: int) -> list[list[Picture]]:
    """The pictures of each shard, about `shard_images` each, by a digest of their names; never an empty shard."""
    # Twice as many pictures are twice as many shards; fewer changes than that leave each picture in its shard.
    shards = 2 ** round(math.log2(max(1.0, len(pictures) / shard_images)))
    found: dict[int, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: picture.name):
        digest = hashlib.sha256(picture.name.encode()).digest()
        found[int.from_bytes(digest[:4]) % shards].append(picture)
    return [found[number] for number in sorted(found)]


def shard_key(files: Sequence[StoredFile], settings: Settings) -> str:
    """Name of the shard of these files under these settings."""
    rows = [(file.key, file.size_bytes, file.changed) for file in files]
    what = [FORMAT, rows, settings.digest(*SQUARE_SETTINGS)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


class ShardReader:
    """Squares of shards. Each shard is read once and kept as it lies in its tar. Threads may share it.

    All of ISIC 2019 at 288 px is about 0.8 GB, and a picture that is drawn at random must not cost a whole tar.
    """

    def __init__(self, shards: Store) -> None:
        self._shards = cached(shards)
        self._tars: dict[str, TileTar] = {}
        self._locks: dict[str, threading.Lock] = {}

    def read(self, picture: StoredPicture) -> NDArray[np.uint8]:
        """The square of a picture, RGB (store_px, store_px, 3)."""
        if picture.shard not in self._tars:
            # Threads that want the same shard wait for one of them to fetch it.
            with self._locks.setdefault(picture.shard, threading.Lock()):
                if picture.shard not in self._tars:
                    self._tars[picture.shard] = TileTar(self._shards.read(f"{picture.shard}.tar"))
        return self._tars[picture.shard].tile(picture.index)
