"""What training and validation read: patches of scans, cut around a balance of points and varied; or whole scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.shards import LOOKALIKE, LUNG, NODULE, Arrays, PreparedScan, ShardNote, ShardReader
from dhctl.ray_jobs.nodules.volume import Volume
from dhctl.ray_jobs.storage import Store

BEYOND_HU = -1000
"""What lies outside of a scan, where a patch reaches beyond."""

SHIFT_HU = 20.0
"""Standard deviation of a patch's brightness: scanners and contrast differ."""

NOISE_HU = 25.0
"""Noise at most."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Patches:
    """Patches of one scan."""

    hu: NDArray[np.float32]
    """(n, z, y, x)."""
    nodule: NDArray[np.bool_]
    """(n, z, y, x)."""


@dataclass(frozen=True)
class WholeScan:
    """A scan with what is known of it."""

    volume: Volume
    arrays: Arrays
    nodules: tuple[Blob, ...]


class ScanDataset:
    """Scans of a part, see training.task.Dataset."""

    def __init__(self, scans: Sequence[PreparedScan], shards: Store, settings: Settings) -> None:
        self._scans, self._settings = scans, settings
        self._reader = ShardReader(shards)

    def __len__(self) -> int:
        return len(self._scans)

    def read(self, index: int, draw: int | None) -> Patches | WholeScan:
        """Varied patches of a scan, or without `draw` the whole of it."""
        note = self._scans[index].shard
        if draw is None:
            return read_whole(self._reader, note)
        rng = np.random.default_rng(draw)
        cut = [self._patch(note, rng) for _ in range(self._settings.patches_per_scan)]
        return Patches(np.stack([hu for hu, _ in cut]), np.stack([nodule for _, nodule in cut]))

    def _patch(self, note: ShardNote, rng: Rng) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        side = np.asarray(self._settings.patch)
        middle = _point(self._reader.points(note), self._settings, rng)
        # A nodule may lie anywhere in its patch but at the edge, where half of it would be cut off.
        start = middle - side // 2 + rng.integers(-side // 3, side // 3 + 1)
        # A patch stays within the scan where the scan is large enough.
        start = np.clip(start, np.minimum(0, note.grid.shape - side), np.maximum(0, note.grid.shape - side))
        low, high = np.maximum(start, 0), np.minimum(start + side, note.grid.shape)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        arrays = self._reader.box(note, (z, y, x))
        around = list(zip(low - start, start + side - high, strict=True))
        hu = np.pad(arrays.hu, around, constant_values=BEYOND_HU).astype(np.float32)
        return _varied(hu, np.pad(arrays.labels > 0, around), rng)


def read_whole(reader: ShardReader, note: ShardNote) -> WholeScan:
    """All of a prepared scan."""
    arrays = reader.whole(note)
    return WholeScan(Volume(arrays.hu, note.grid), arrays, note.nodules)


def _point(points: NDArray[np.int16], settings: Settings, rng: Rng) -> NDArray[np.int64]:
    """A point of a kind that is drawn first; where the scan has none of it, one anywhere in the lungs."""
    chance = rng.random()
    if chance < settings.nodule_share:
        kind = NODULE
    elif chance < settings.nodule_share + settings.lookalike_share:
        kind = LOOKALIKE
    else:
        kind = LUNG
    of_kind = points[points[:, 0] == kind]
    chosen = of_kind if len(of_kind) else points[points[:, 0] == LUNG]
    point: NDArray[np.int64] = chosen[rng.integers(len(chosen)), 1:].astype(np.int64)
    return point


def _varied(
    hu: NDArray[np.float32], nodule: NDArray[np.bool_], rng: Rng
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mirrored, turned by quarters in the plane where it is square, brighter or darker, noisier."""
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    hu, nodule = np.flip(hu, axes), np.flip(nodule, axes)
    if hu.shape[1] == hu.shape[2] and rng.random() < 0.5:
        hu, nodule = hu.swapaxes(1, 2), nodule.swapaxes(1, 2)
    noise = rng.uniform(0, NOISE_HU) * rng.standard_normal(hu.shape, dtype=np.float32)
    return (hu + noise + np.float32(rng.normal(0, SHIFT_HU))).astype(np.float32), np.ascontiguousarray(nodule)
