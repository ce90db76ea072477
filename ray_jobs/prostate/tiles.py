"""Cutting a slide's tissue into tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.slides import Slide, UnreadableSlideError
from dhctl.ray_jobs.prostate.tissue import tissue_mask


def tissue_tiles(slide: Slide, settings: Settings) -> NDArray[np.uint8]:
    """Tiles (n, tile_px, tile_px, 3) RGB of a slide's tissue at tile_um_per_px, row by row, at most max_tiles.

    Raises UnreadableSlideError where no tile holds enough tissue.
    """
    corners = tissue_corners(slide, settings)
    if not corners:
        raise UnreadableSlideError("no tissue was found on it")
    return read_tiles(slide, corners, settings)


def tissue_corners(slide: Slide, settings: Settings) -> list[tuple[float, float]]:
    """Where the tiles of a slide's tissue lie, see tile_corners; empty where there is none."""
    return tile_corners(tissue_mask(slide.overview(settings.mask_um_per_px)), settings)


def read_tiles(slide: Slide, corners: Sequence[tuple[float, float]], settings: Settings) -> NDArray[np.uint8]:
    """The tiles (n, tile_px, tile_px, 3) RGB at these corners (x, y in micrometres), at least one."""
    side, step = settings.tile_px, settings.tile_um_per_px
    return np.stack([slide.read(x_um, y_um, side, side, step) for x_um, y_um in corners])


def tile_corners(mask: NDArray[np.bool_], settings: Settings) -> list[tuple[float, float]]:
    """Corners of at most max_tiles tiles: more are thinned evenly, so that all of the tissue stays represented."""
    corners = all_corners(mask, settings)
    if len(corners) <= settings.max_tiles:
        return corners
    kept = np.linspace(0, len(corners) - 1, settings.max_tiles).round().astype(int)
    return [corners[index] for index in kept]


def all_corners(mask: NDArray[np.bool_], settings: Settings) -> list[tuple[float, float]]:
    """Upper left corners (x, y in micrometres) of the tiles of a regular grid with more than tissue_share of tissue."""
    tile_um = settings.tile_px * settings.tile_um_per_px
    cell = tile_um / settings.mask_um_per_px
    total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    corners = []
    for row in range(int(mask.shape[0] / cell)):
        for column in range(int(mask.shape[1] / cell)):
            top, bottom = round(row * cell), max(round(row * cell) + 1, round((row + 1) * cell))
            left, right = round(column * cell), max(round(column * cell) + 1, round((column + 1) * cell))
            tissue = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
            if tissue > settings.tissue_share * (bottom - top) * (right - left):
                corners.append((column * tile_um, row * tile_um))
    return corners
