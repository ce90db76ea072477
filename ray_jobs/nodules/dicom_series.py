"""Reading a CT series of single-frame DICOM files.

DICOM PS3.3: C.7.6.2 (where a slice lies), C.11.1.1.2 (from stored values to Hounsfield units).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from dhctl.ray_jobs.nodules.volume import LEAST_SLICES, Grid, UnusableScanError, Volume, to_hu

SPACING_TOLERANCE = 0.05
"""Share by which a distance of slices may differ from the usual one; scanners round positions."""

SAME_PLACE_MM = 0.01

NEEDED = (
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
)


@dataclass(frozen=True)
class Series:
    """A CT series, its slices sorted along the first axis of the volume."""

    volume: Volume
    slices: tuple[Dataset, ...]
    """Headers without pixels."""

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.slices[0].SeriesInstanceUID)


def read_series(files: Sequence[Path]) -> Series:
    """The series whose slices these files are, in any order. Raises UnusableScanError."""
    slices = [read_file(path) for path in files]
    for slice_, path in zip(slices, files, strict=True):
        _refuse_incomplete(slice_, path.name)
    _refuse_mixed(slices)
    normal = np.cross(*_orientation(slices[0]))
    slices.sort(key=lambda one: float(normal @ _position(one)))
    grid = _grid(slices)
    pixels = np.stack([_hu(one) for one in slices])
    for one in slices:
        del one.PixelData
    return Series(Volume(pixels, grid), tuple(slices))


def read_file(path: Path) -> FileDataset:
    """A DICOM file. Raises UnusableScanError."""
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise UnusableScanError(
            f"has the file {path.name}, which cannot be read: {str(error) or type(error).__name__}"
        ) from error


def _refuse_incomplete(slice_: Dataset, name: str) -> None:
    if int(slice_.get("NumberOfFrames", None) or 1) > 1:
        raise UnusableScanError(f"has several frames in the file {name}; export it as one file a slice")
    missing = [keyword for keyword in NEEDED if slice_.get(keyword) in (None, "")]
    if missing:
        raise UnusableScanError(f"has no {missing[0]} in the file {name}; export the original CT slices")


def _refuse_mixed(slices: Sequence[Dataset]) -> None:
    first = slices[0]
    apart = [one for one in slices if not np.allclose(_orientation(one), _orientation(first), atol=1e-3)]
    if apart:
        raise UnusableScanError(
            f"has slices of different orientations ({len(apart)} of {len(slices)} differ from the first, such as "
            f"instance {apart[0].get('InstanceNumber', '?')}); take localizers and reformats out of the series"
        )
    shapes = {(int(one.Rows), int(one.Columns), *(round(float(v), 4) for v in one.PixelSpacing)) for one in slices}
    if len(shapes) > 1:
        told = " and ".join(f"{rows} x {columns} at {y:g} x {x:g} mm" for rows, columns, y, x in sorted(shapes)[:2])
        raise UnusableScanError(f"has slices of different sizes or pixel spacings: {told}; export one reconstruction")


def _grid(slices: Sequence[Dataset]) -> Grid:
    """The grid of sorted slices. Raises UnusableScanError where they are no evenly spaced stack."""
    if len(slices) < LEAST_SLICES:
        raise UnusableScanError(f"has {len(slices)} slices; a scan has at least {LEAST_SLICES}")
    along_row, along_column = _orientation(slices[0])
    normal = np.cross(along_row, along_column)
    positions = np.stack([_position(one) for one in slices])
    spacing = _slice_spacing(positions @ normal)
    steps = np.diff(positions, axis=0)
    if np.abs(steps - np.outer(steps @ normal, normal)).max() > SPACING_TOLERANCE * spacing + SAME_PLACE_MM:
        raise UnusableScanError(
            "has slices that are shifted against each other (a tilted gantry?); resample it to a straight grid"
        )
    y_mm, x_mm = (float(value) for value in slices[0].PixelSpacing)
    shape = (len(slices), int(slices[0].Rows), int(slices[0].Columns))
    # DICOM's first direction is that of increasing column, which is the last axis of the array.
    return Grid.checked(shape, (spacing, y_mm, x_mm), positions[0], np.stack([normal, along_column, along_row]))


def _slice_spacing(heights_mm: NDArray[np.float64]) -> float:
    """The distance of sorted slices. Raises UnusableScanError where it varies."""
    steps = np.diff(heights_mm)
    if (steps < SAME_PLACE_MM).any():
        at = heights_mm[int(np.argmin(steps))]
        raise UnusableScanError(f"has two slices at {at:.1f} mm; export one reconstruction and one phase a series")
    usual = float(np.median(steps))
    off = np.abs(steps - usual) > SPACING_TOLERANCE * usual
    if not off.any():
        return float(heights_mm[-1] - heights_mm[0]) / len(steps)
    first = int(np.argmax(off))
    between = f"between {heights_mm[first]:.1f} and {heights_mm[first + 1]:.1f} mm"
    missing = np.rint(steps / usual) - 1
    if np.abs(steps / usual - missing - 1).max() <= SPACING_TOLERANCE:
        raise UnusableScanError(f"lacks {int(missing.sum())} slices, the first {between}; send the whole series again")
    raise UnusableScanError(
        f"has irregular slice spacing: usually {usual:.2f} mm, but {steps[first]:.2f} mm {between}; resample it evenly"
    )


def _hu(slice_: Dataset) -> NDArray[np.int16]:
    number = slice_.get("InstanceNumber", "?")
    try:
        stored = slice_.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError, KeyError) as error:
        # pydicom lists every decoder that it tried; the first line says what is wrong.
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .:")
        raise UnusableScanError(
            f"has pixels that cannot be decoded in instance {number}: {first}; send it again, uncompressed"
        ) from error
    return to_hu(stored * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept))


def _orientation(slice_: Dataset) -> NDArray[np.float64]:
    """Unit vectors (2, 3) along which columns and rows count up."""
    return np.asarray(slice_.ImageOrientationPatient, dtype=float).reshape(2, 3)


def _position(slice_: Dataset) -> NDArray[np.float64]:
    return np.asarray(slice_.ImagePositionPatient, dtype=float)
