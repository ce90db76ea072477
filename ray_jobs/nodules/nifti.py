"""Reading NIfTI volumes and masks.

NIfTI counts x to the right and y to the front (RAS), so both change sign here. Axes may be stored in any order; they
are put in the order (z, y, x) first.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.volume import Grid, UnusableScanError, Volume, to_hu

SAME_PLACE_MM = 0.05
"""By how much a mask may lie beside its scan: headers are rounded."""


def read_nifti(path: Path) -> Volume:
    """A CT in Hounsfield units. Raises UnusableScanError."""
    values, grid = _read(path)
    return Volume(to_hu(values), grid)


def read_nifti_mask(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Where a mask of the scan with this grid is not zero. Raises UnusableScanError."""
    values, own = _read(path)
    if own.shape != grid.shape:
        sizes = (" x ".join(map(str, shape)) for shape in (own.shape, grid.shape))
        raise UnusableScanError("has a mask of another size: {} voxels (z, y, x), {} in the scan".format(*sizes))
    corners = np.array([[0, 0, 0], np.asarray(grid.shape) - 1])
    apart = np.abs(own.to_patient(corners) - grid.to_patient(corners)).max()
    if apart > SAME_PLACE_MM:
        raise UnusableScanError(f"has a mask that lies {apart:.1f} mm beside it; draw the mask on this scan")
    mask: NDArray[np.bool_] = values != 0
    return mask


def _read(path: Path) -> tuple[NDArray[np.generic], Grid]:
    try:
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(path))
        values = np.asanyarray(image.dataobj)
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
    ) as error:
        raise UnusableScanError(f"cannot be read: {path.name}: {str(error) or type(error).__name__}") from error
    if values.ndim != 3:
        raise UnusableScanError(f"has {values.ndim} dimensions in {path.name}; a scan has 3")
    affine = image.affine * np.array([[-1], [-1], [1], [1]])  # RAS to LPS
    steps = affine[:3, :3].T
    spacing = np.linalg.norm(steps, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a spacing of zero is refused by Grid.checked
        direction = steps / spacing[:, None]
    grid = Grid.checked(values.shape[::-1], spacing[::-1], affine[:3, 3], direction[::-1])
    return values.transpose(2, 1, 0), grid
