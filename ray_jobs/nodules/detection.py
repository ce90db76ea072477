"""From a map of values to findings with a place, a size and a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dhctl.ray_jobs.nodules.volume import Grid, Vector


@dataclass(frozen=True)
class Blob:
    """A nodule, or what is taken for one."""

    centre_mm: Vector
    """Patient coordinates (x, y, z)."""
    diameter_mm: float
    """Of the ball of the same volume."""
    score: float = 1.0
    """Higher is more likely."""


def blobs(values: NDArray[np.float32], least: float, grid: Grid, least_diameter_mm: float) -> list[Blob]:
    """Pieces of voxels above `least`, the most likely first; each is scored by its highest value.

    The centre is weighted by how far values are above `least`, so that a faint tail along a vessel moves it little.
    """
    pieces, count = ndimage.label(values > least)
    numbers = np.arange(1, count + 1)
    if not count:
        return []
    diameters = diameter_mm(np.bincount(pieces.ravel(), minlength=count + 1)[1:] * grid.voxel_mm3)
    scores = np.asarray(ndimage.maximum(values, pieces, numbers))
    centres = grid.to_patient(np.asarray(ndimage.center_of_mass(values - least, pieces, numbers)))
    found = [
        Blob((float(x), float(y), float(z)), float(diameter), float(score))
        for (x, y, z), diameter, score in zip(centres, diameters, scores, strict=True)
        if diameter >= least_diameter_mm
    ]
    return sorted(found, key=lambda blob: -blob.score)


def nodules_of(labels: NDArray[np.uint8], grid: Grid) -> list[Blob]:
    """The nodules of a label map, in the order of their numbers, which are 1 and on without a gap."""
    count = int(labels.max(initial=0))
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    diameters = diameter_mm(np.bincount(labels.ravel(), minlength=count + 1)[1:] * grid.voxel_mm3)
    centres = grid.to_patient(np.asarray(ndimage.center_of_mass(labels > 0, labels, numbers)))
    return [
        Blob((float(x), float(y), float(z)), float(diameter))
        for (x, y, z), diameter in zip(centres, diameters, strict=True)
    ]


def diameter_mm(volume_mm3: ArrayLike) -> NDArray[np.float64]:
    """Of balls of these volumes."""
    diameters: NDArray[np.float64] = np.cbrt(6 * np.asarray(volume_mm3) / np.pi)
    return diameters
