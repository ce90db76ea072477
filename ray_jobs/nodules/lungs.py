"""Where the lungs are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhctl.ray_jobs.nodules.volume import UnusableScanError, Volume

AIR_BELOW_HU = -400
"""Halfway between lung and soft tissue."""

COARSE_MM = 2.0
"""The mask is made at about this spacing: distance transforms at full resolution would take minutes."""

LEAST_LUNG_ML = 50.0
"""Less enclosed air is bowel or a windpipe."""

CLOSING_MM = 10.0
"""Nodules on the wall and vessels thinner than twice this are taken into the lung."""


def lung_mask(volume: Volume) -> NDArray[np.bool_]:
    """True (z, y, x) in the lungs with their vessels and with nodules on the wall.

    Air that does not reach the sides of the picture, its largest piece and those at least a tenth as large, closed.
    Raises UnusableScanError where there is none.
    """
    step = tuple(max(1, round(COARSE_MM / spacing)) for spacing in volume.grid.spacing_mm)
    coarse = volume.hu[:: step[0], :: step[1], :: step[2]]
    spacing = np.asarray(volume.grid.spacing_mm) * step
    lungs = _enclosed_air(coarse, float(np.prod(spacing)))
    closed = _closed(lungs, spacing)
    fine = closed.repeat(step[0], axis=0).repeat(step[1], axis=1).repeat(step[2], axis=2)
    z, y, x = volume.hu.shape
    return fine[:z, :y, :x]


def lung_box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice, slice]:
    """The smallest box that holds the mask and `margin` voxels around it, within the array."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    z, y, x = (
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, size in zip(box, mask.shape, strict=True)
    )
    return z, y, x


def _enclosed_air(hu: NDArray[np.int16], voxel_mm3: float) -> NDArray[np.bool_]:
    pieces, _ = ndimage.label(hu < AIR_BELOW_HU)
    # The scan may end within the lungs, but not beside them: only the sides are the outside.
    sides = np.unique(np.concatenate([pieces[:, [0, -1], :].ravel(), pieces[:, :, [0, -1]].ravel()]))
    sizes = np.bincount(pieces.ravel())
    sizes[sides] = 0
    sizes[0] = 0
    if sizes.max() * voxel_mm3 < LEAST_LUNG_ML * 1000:
        raise UnusableScanError(
            f"shows no lungs: {sizes.max() * voxel_mm3 / 1000:.0f} ml of air in the body, below {LEAST_LUNG_ML:g} ml; "
            "is it a CT of the chest in Hounsfield units?"
        )
    kept: NDArray[np.bool_] = np.isin(pieces, np.flatnonzero(sizes * 10 >= sizes.max()))
    return kept


def _closed(mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Closing by a ball, through distances: quicker than a structuring element of that size."""
    # Slices beyond the ends repeat the last: otherwise the ball would wear the lungs away from there.
    pad = int(np.ceil(CLOSING_MM / spacing_mm[0]))
    padded = np.pad(mask, ((pad, pad), (0, 0), (0, 0)), mode="edge")
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > CLOSING_MM
    filled: NDArray[np.bool_] = (closed | padded)[pad:-pad]
    return filled
