"""The prepare stage: from scans as they come to shards of equal spacing and an index of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.data.staged import prefetched, staged
from dhctl.ray_jobs.nodules.detection import nodules_of
from dhctl.ray_jobs.nodules.lungs import AIR_BELOW_HU, lung_box, lung_mask
from dhctl.ray_jobs.nodules.resampling import resampled, resampled_labels
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.shards import (
    LOOKALIKE,
    LUNG,
    NODULE,
    Arrays,
    ShardNote,
    shard_key,
    write_shard,
)
from dhctl.ray_jobs.nodules.sources import Skipped, Source, read_scan
from dhctl.ray_jobs.nodules.volume import UnusableScanError, Vector, Volume
from dhctl.ray_jobs.storage import Store

MARGIN_MM = 8.0
"""What is kept around the lungs."""

POINTS = 2000
"""Of each kind, at most: enough that patches around them differ."""


@dataclass(frozen=True)
class ScanTask:
    """One scan to prepare."""

    source: Source
    data: Store
    shards: Store
    settings: Settings


def prepare_scan(task: ScanTask) -> ShardNote | Skipped:
    """Prepare one scan into a shard; a scan that cannot be used comes back as Skipped."""
    source, settings = task.source, task.settings
    try:
        with staged(task.data, source.keys) as paths:
            scan = read_scan(source, paths, settings.nodule_words)
            digest = _sha256(paths)
        labels = resampled_labels(scan.labels, scan.volume.grid, settings.spacing_mm)
        volume, arrays = cut_to_lungs(resampled(scan.volume, settings.spacing_mm), labels)
    except (UnusableScanError, OSError) as error:
        return Skipped(source.scan, str(error) or type(error).__name__)
    note = ShardNote(
        key=shard_key(source, settings),
        scan=source.scan,
        content_sha256=digest,
        arrays_sha256="",
        grid=volume.grid,
        spacing_mm=scan.volume.grid.spacing_mm,
        nodules=tuple(nodules_of(arrays.labels, volume.grid)),
    )
    return write_shard(task.shards, note, arrays, points_of(volume, arrays, source.lookalikes_mm))


def cut_to_lungs(volume: Volume, labels: NDArray[np.uint8]) -> tuple[Volume, Arrays]:
    """The box of the lungs and the nodules, with a margin. Raises UnusableScanError where there are no lungs."""
    lungs = lung_mask(volume)
    box = lung_box(lungs | (labels > 0), round(MARGIN_MM / min(volume.grid.spacing_mm)))
    cut = Volume(volume.hu[box], volume.grid.cropped(box))
    return cut, Arrays(cut.hu, labels[box], lungs[box])


def points_of(volume: Volume, arrays: Arrays, lookalikes_mm: Sequence[Vector]) -> NDArray[np.int16]:
    """Points (n, 4) of kind, z, y, x: in nodules, in what may be taken for one, and anywhere in the lungs."""
    rng = np.random.default_rng(0)  # the same scan gives the same shard
    inside = arrays.lungs & (arrays.labels == 0)
    kinds = [(LOOKALIKE, _told(volume, lookalikes_mm))] if lookalikes_mm else []
    if not lookalikes_mm:
        kinds.append((LOOKALIKE, np.argwhere(inside & (arrays.hu > AIR_BELOW_HU))))
    kinds.append((LUNG, np.argwhere(inside)))
    # As many of each nodule: a large one has a thousand times the voxels of a small one.
    count = max(1, int(arrays.labels.max(initial=0)))
    kinds += [(NODULE, np.argwhere(arrays.labels == label)) for label in range(1, count + 1)]
    chosen = []
    for kind, points in kinds:
        most = POINTS // count if kind == NODULE else POINTS
        few = points if len(points) <= most else points[rng.choice(len(points), most, replace=False)]
        chosen.append(np.column_stack([np.full(len(few), kind), few]))
    return np.concatenate(chosen).astype(np.int16)


def _told(volume: Volume, points_mm: Sequence[Vector]) -> NDArray[np.int64]:
    """The points of a table that are in the volume."""
    index = np.rint(volume.grid.to_index(points_mm)).astype(np.int64)
    return index[((index >= 0) & (index < volume.grid.shape)).all(axis=1)]


def fetched_ahead(tasks: Sequence[ScanTask]) -> AbstractContextManager[None]:
    """The next scans come into the cache while one is prepared."""
    return prefetched(tasks[0].data, [key for task in tasks for key in task.source.keys]) if tasks else nullcontext()


def _sha256(paths: Sequence[Path]) -> str:
    """Of the contents, in the order of the files' names: a scan copied elsewhere keeps its digest."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda one: one.name):
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
