"""Shards: one prepared scan each, as raw arrays behind each other, and a note that says what is inside.

A shard's name is a digest of the scan's files (names, sizes, times of change), of what tables say of it and of the
settings that shape it: an unchanged scan is never prepared twice. The note is written after the arrays, so a note means
a complete shard. Arrays are raw and their first axis is z, so that a patch costs the bytes of its slices and no more,
from a folder and from S3 alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.data.staged import CachedStore, cached, staged
from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.sources import Source
from dhctl.ray_jobs.nodules.volume import Grid
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.storage import Store

SCAN_SETTINGS = ("spacing_mm", "nodule_words")
"""Settings that change what is in a shard."""

FORMAT = "1"
"""Raised when the same settings give another shard."""

HU_BYTES, LABEL_BYTES, LUNG_BYTES = 2, 1, 1

NODULE, LOOKALIKE, LUNG = 0, 1, 2
"""Kinds of a point."""


@dataclass(frozen=True)
class ShardNote:
    """What a shard holds."""

    key: str
    """Name of the shard, without ending."""
    scan: str
    content_sha256: str
    """Of the scan's files and masks."""
    arrays_sha256: str
    grid: Grid
    """Of the arrays: resampled, and cut to the lungs."""
    spacing_mm: tuple[float, float, float]
    """Of the scan as it came, along (z, y, x)."""
    nodules: tuple[Blob, ...]
    """In the order of their labels."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        grid = content["grid"]
        return cls(
            **{
                **content,
                "grid": Grid(
                    shape=tuple(grid["shape"]),
                    spacing_mm=tuple(grid["spacing_mm"]),
                    origin_mm=tuple(grid["origin_mm"]),
                    direction=tuple(tuple(row) for row in grid["direction"]),  # type: ignore[arg-type]
                ),
                "spacing_mm": tuple(content["spacing_mm"]),
                "nodules": tuple(Blob(**{**row, "centre_mm": tuple(row["centre_mm"])}) for row in content["nodules"]),
            }
        )


@dataclass(frozen=True)
class PreparedScan:
    """A scan that is ready for training: its shard, patient and part of the split."""

    shard: ShardNote
    patient: str
    part: Part

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**content, "shard": ShardNote.from_json(content["shard"])})


@dataclass(frozen=True)
class Arrays:
    """The arrays of a scan or of a box of it, each (z, y, x)."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    lungs: NDArray[np.bool_]


def shard_key(source: Source, settings: Settings) -> str:
    """Name of the shard of this scan under these settings."""
    described = asdict(source)
    for name in ("patient", "part"):  # they belong to the index
        del described[name]
    what = [FORMAT, described, settings.digest(*SCAN_SETTINGS)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]


def write_shard(store: Store, note: ShardNote, arrays: Arrays, points: NDArray[np.int16]) -> ShardNote:
    """Write the arrays and the points (n, 4) of kind, z, y, x; then the note, which is returned with their digest."""
    content = b"".join(
        (arrays.hu.astype("<i2").tobytes(), arrays.labels.tobytes(), arrays.lungs.astype(np.uint8).tobytes())
    )
    complete = ShardNote(**{**vars(note), "arrays_sha256": hashlib.sha256(content).hexdigest()})
    store.write(f"{note.key}.raw", content)
    store.write(f"{note.key}.points", points.astype("<i2").tobytes())
    store.write_json(f"{note.key}.json", asdict(complete))
    return complete


class ShardReader:
    """Reads scans, boxes of scans, and points; points are kept. Threads may share it."""

    def __init__(self, shards: Store) -> None:
        self._shards = shards
        self._has_cache = isinstance(cached(shards), CachedStore)
        self._points: dict[str, NDArray[np.int16]] = {}

    def points(self, note: ShardNote) -> NDArray[np.int16]:
        """Points (n, 4) of kind, z, y, x around which patches are cut."""
        if note.key not in self._points:
            content = self._shards.read(f"{note.key}.points")
            self._points[note.key] = np.frombuffer(content, "<i2").reshape(-1, 4)
        return self._points[note.key]

    def whole(self, note: ShardNote) -> Arrays:
        """All of a scan."""
        z, y, x = note.grid.shape
        return self.box(note, (slice(0, z), slice(0, y), slice(0, x)))

    def box(self, note: ShardNote, box: tuple[slice, slice, slice]) -> Arrays:
        """A box within a scan. Raises OSError, ValueError where the shard was cut short."""
        z, y, x = note.grid.shape
        part, inside = box[0], (slice(None), *box[1:])
        start = 0
        found = []
        for size in (HU_BYTES, LABEL_BYTES, LUNG_BYTES):
            content = self._span(note.key, start + part.start * y * x * size, (part.stop - part.start) * y * x * size)
            values = np.frombuffer(content, f"<i{size}" if size > 1 else np.uint8)
            found.append(values.reshape(-1, y, x)[inside].copy())  # what torch takes must be writable
            start += z * y * x * size
        hu, labels, lungs = found
        return Arrays(hu, labels, lungs.astype(bool))

    def _span(self, key: str, start: int, size: int) -> bytes:
        """So many bytes of the arrays' file."""
        if self._shards.is_local or self._has_cache:
            with staged(self._shards, [f"{key}.raw"]) as (path,), path.open("rb") as stream:
                stream.seek(start)
                return stream.read(size)
        content = bytearray()
        for piece in self._shards.chunks(f"{key}.raw", start):
            content += piece
            if len(content) >= size:
                break
        return bytes(content[:size])
