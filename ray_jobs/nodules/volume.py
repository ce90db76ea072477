"""A CT scan in memory: values in Hounsfield units, and where each voxel lies in the patient.

Arrays have the axes (z, y, x): slices, rows, columns. Points in the patient are (x, y, z) in millimetres of DICOM's
patient coordinates (LPS: x to the left, y to the back, z to the head), which MetaImage shares and NIfTI does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = tuple[float, float, float]

SPACING_MM = (0.1, 10.0)
"""A spacing outside of these is a wrong header, or too coarse to hold a nodule."""

LEAST_SLICES = 3


class UnusableScanError(Exception):
    """A scan or its mask cannot be used; the text says why, to follow the scan's name."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an array lie in the patient."""

    shape: tuple[int, int, int]
    """Voxels along (z, y, x)."""
    spacing_mm: Vector
    """Distance of neighbours along (z, y, x)."""
    origin_mm: Vector
    """Patient coordinates (x, y, z) of the centre of voxel [0, 0, 0]."""
    direction: tuple[Vector, Vector, Vector]
    """Unit vectors (x, y, z) in the patient, along which the array's axes z, y and x go, in this order."""

    @classmethod
    def checked(cls, shape: Sequence[int], spacing_mm: ArrayLike, origin_mm: ArrayLike, direction: ArrayLike) -> Self:
        """A grid for which header values make sense. Raises UnusableScanError."""
        if len(shape) != 3 or min(shape) < LEAST_SLICES:
            raise UnusableScanError(
                f"has {' x '.join(map(str, shape))} voxels; a scan has at least {LEAST_SLICES} slices"
            )
        least, most = SPACING_MM
        steps = _vector(spacing_mm)
        if not all(least <= step <= most for step in steps):  # NaN too
            told = " x ".join(f"{step:g}" for step in steps)
            raise UnusableScanError(f"has the spacing {told} mm; each must be {least:g} to {most:g} mm")
        axes = np.asarray(direction, dtype=float)
        if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
            raise UnusableScanError(
                "has axes that are not at right angles (a tilted gantry?); resample it to a straight grid"
            )
        if abs(axes[0, 2]) < np.sqrt(0.5):
            raise UnusableScanError("is not axial: its slices are stacked across the body; send the axial series")
        z, y, x = shape
        held = (_vector(axes[0]), _vector(axes[1]), _vector(axes[2]))
        return cls((z, y, x), steps, _vector(origin_mm), held)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm))

    def to_patient(self, index: ArrayLike) -> NDArray[np.float64]:
        """Indices (z, y, x) of shape (..., 3), whole or not, to patient coordinates (x, y, z) of the same shape."""
        steps = np.asarray(self.direction) * np.asarray(self.spacing_mm)[:, None]
        moved: NDArray[np.float64] = np.asarray(index, dtype=float) @ steps + np.asarray(self.origin_mm)
        return moved

    def to_index(self, point_mm: ArrayLike) -> NDArray[np.float64]:
        """Patient coordinates (x, y, z) of shape (..., 3) to indices (z, y, x) of the same shape, not rounded."""
        along = (np.asarray(point_mm, dtype=float) - np.asarray(self.origin_mm)) @ np.asarray(self.direction).T
        index: NDArray[np.float64] = along / np.asarray(self.spacing_mm)
        return index

    def with_spacing(self, spacing_mm: Vector) -> Grid:
        """The grid of this spacing that begins at the same voxel centre and ends within this one."""
        z, y, x = (
            int((count - 1) * old / new + 1e-6) + 1
            for count, old, new in zip(self.shape, self.spacing_mm, spacing_mm, strict=True)
        )
        return Grid((z, y, x), spacing_mm, self.origin_mm, self.direction)

    def cropped(self, box: tuple[slice, slice, slice]) -> Grid:
        """The grid of `array[box]`."""
        origin = _vector(self.to_patient([part.start for part in box]))
        z, y, x = (part.stop - part.start for part in box)
        return Grid((z, y, x), self.spacing_mm, origin, self.direction)


@dataclass(frozen=True)
class Volume:
    """A scan: Hounsfield units as int16 (z, y, x), and their grid."""

    hu: NDArray[np.int16]
    grid: Grid


def to_hu(values: NDArray[np.generic]) -> NDArray[np.int16]:
    """Hounsfield units of any number type as int16; a scanner's padding below is cut off."""
    if not np.isfinite(values).all():
        raise UnusableScanError("has voxels that are not numbers (NaN or infinite); export it again")
    hu: NDArray[np.int16] = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    return hu


def _vector(values: ArrayLike) -> Vector:
    x, y, z = (float(value) for value in np.asarray(values))
    return x, y, z
