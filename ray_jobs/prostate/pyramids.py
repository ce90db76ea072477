"""Writing pictures as tiled pyramidal TIFF, which OpenSlide opens as generic-tiff."""

from __future__ import annotations

import io

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE_PX = 256
SHRINK = 4
"""Each level is this many times smaller than the one before; the last fits into a few tiles."""
LARGEST_LAST_PX = 512


def pyramid(level0: NDArray[np.uint8], um_per_px: float, description: str | None = None) -> bytes:
    """A TIFF of a picture, grey (h, w) or RGB (h, w, 3), with resolution tags.

    `description` is ASCII text for its first level. It is not compressed with JPEG, which would need imagecodecs and
    change the values of maps: deflate is in every reader.
    """
    target = io.BytesIO()
    with tifffile.TiffWriter(target) as tiff:
        for number, level in enumerate(_levels(level0)):
            px_per_cm = 1e4 / (um_per_px * SHRINK**number)
            tiff.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if level.ndim == 3 else "minisblack",
                compression="adobe_deflate",
                compressionargs={"level": 1},
                resolution=(px_per_cm, px_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=0 if number == 0 else 1,
                description=description if number == 0 else None,
                metadata=None,
            )
    return target.getvalue()


def _levels(level0: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [level0]
    while max(levels[-1].shape[:2]) > LARGEST_LAST_PX and min(levels[-1].shape[:2]) >= SHRINK:
        levels.append(_shrunk(levels[-1]))
    return levels


def _shrunk(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of each SHRINK x SHRINK pixels; what does not fill one at the right and lower edge falls away."""
    rows, columns = level.shape[0] // SHRINK, level.shape[1] // SHRINK
    whole = level[: rows * SHRINK, : columns * SHRINK]
    small: NDArray[np.uint8] = (
        whole.reshape(rows, SHRINK, columns, SHRINK, *level.shape[2:]).mean(axis=(1, 3)).astype(np.uint8)
    )
    return small
