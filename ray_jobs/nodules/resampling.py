"""Scans and masks on a grid of another spacing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhctl.ray_jobs.nodules.volume import Grid, Vector, Volume

HU_RANGE = (-1000, 400)
"""From air to calcium: what lies beyond says nothing of nodules."""


def clipped(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Values cut to HU_RANGE."""
    return np.clip(hu, *HU_RANGE)


def resampled(volume: Volume, spacing_mm: Vector) -> Volume:
    """The clipped scan at this spacing, linearly interpolated; where that is coarser, it is smoothed first."""
    target = volume.grid.with_spacing(spacing_mm)
    values = clipped(volume.hu).astype(np.float32)
    steps = np.asarray(spacing_mm) / np.asarray(volume.grid.spacing_mm)
    if (steps > 1).any():
        # A Gaussian as wide as what the new voxel adds: without it thin slices would be picked out, noise and all.
        ndimage.gaussian_filter(values, 0.4 * np.sqrt(np.maximum(steps**2 - 1, 0)), output=values, mode="nearest")
    moved = ndimage.affine_transform(values, steps, output_shape=target.shape, order=1, mode="nearest")
    return Volume(np.rint(moved).astype(np.int16), target)


def resampled_labels(labels: NDArray[np.uint8], grid: Grid, spacing_mm: Vector) -> NDArray[np.uint8]:
    """Labels (z, y, x) at this spacing, each voxel the nearest one's; a label too small to meet any keeps one voxel."""
    target = grid.with_spacing(spacing_mm)
    steps = np.asarray(spacing_mm) / np.asarray(grid.spacing_mm)
    moved: NDArray[np.uint8] = ndimage.affine_transform(
        labels, steps, output_shape=target.shape, order=0, mode="nearest"
    )
    for label in np.setdiff1d(np.unique(labels), np.unique(moved)):
        centre = np.argwhere(labels == label).mean(axis=0) / steps
        z, y, x = np.minimum(np.rint(centre).astype(int), np.asarray(target.shape) - 1)
        moved[z, y, x] = label
    return moved


def onto(values: NDArray[np.float32], grid: Grid, target: Grid) -> NDArray[np.float32]:
    """Values of one grid on another of the same directions, linearly interpolated; 0 outside."""
    steps = np.asarray(target.spacing_mm) / np.asarray(grid.spacing_mm)
    start = grid.to_index(target.origin_mm)
    moved: NDArray[np.float32] = ndimage.affine_transform(
        values, steps, offset=start, output_shape=target.shape, order=1, mode="constant"
    )
    return moved
