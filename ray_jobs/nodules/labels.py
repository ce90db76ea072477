"""Label maps: which voxel belongs to which nodule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.volume import Grid, UnusableScanError

MOST_NODULES = 255


def numbered(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Numbers from 1 on for the pieces of a mask, which may touch at a corner. Raises UnusableScanError."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count > MOST_NODULES:
        raise UnusableScanError(f"has a mask of {count} separate pieces; is it a mask of nodules?")
    numbers: NDArray[np.uint8] = labels.astype(np.uint8)
    return numbers


def balls(nodules: Sequence[Blob], grid: Grid) -> NDArray[np.uint8]:
    """A label map of balls, for nodules of which only centre and diameter are known. Raises UnusableScanError."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    if len(nodules) > MOST_NODULES:
        raise UnusableScanError(f"has {len(nodules)} nodules in its table; is it a table of nodules?")
    for number, nodule in enumerate(nodules, start=1):
        centre = grid.to_index(nodule.centre_mm)
        inside = np.rint(centre).astype(int)
        if (inside < 0).any() or (inside >= grid.shape).any():
            told = ", ".join(f"{value:.1f}" for value in nodule.centre_mm)
            raise UnusableScanError(f"does not hold the nodule at ({told}) mm; is the table of another scan?")
        radius = max(nodule.diameter_mm / 2, min(grid.spacing_mm) / 2)
        reach = np.ceil(radius / np.asarray(grid.spacing_mm)).astype(int) + 1
        low, high = np.maximum(inside - reach, 0), np.minimum(inside + reach + 1, grid.shape)
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        index = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij"), axis=-1)
        distance = np.linalg.norm((index - centre) * grid.spacing_mm, axis=-1)
        labels[box][distance <= radius] = number
        labels[tuple(inside)] = number
    return labels
