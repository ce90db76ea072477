"""Small chests in real formats, for the tests of the nodules job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dhctl.ray_jobs.nodules.dicom_writing import Origin, seg_object
from dhctl.ray_jobs.nodules.phantom_files import Phantom, dicom_slices
from dhctl.ray_jobs.nodules.volume import Grid, Volume

SHAPE = (12, 40, 48)
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
GRID = Grid(SHAPE, (3.0, 2.5, 2.5), (-60.0, -50.0, -200.0), AXIAL)

NODULES = ((6, 20, 12), (5, 24, 36))
"""Middles (z, y, x) of the two nodules of `labels`, one in each lung."""


def labels(count: int = 2) -> NDArray[np.uint8]:
    """The first nodules of NODULES, each a ball of some 10 mm."""
    found = np.zeros(SHAPE, dtype=np.uint8)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    for number, middle in enumerate(NODULES[:count], start=1):
        distance = np.linalg.norm((index - np.asarray(middle)) * GRID.spacing_mm, axis=-1)
        found[distance <= 5.0] = number
    return found


def chest(count: int = 2) -> Volume:
    """Soft tissue with two lungs, in which these nodules are; every voxel is a little different."""
    hu = np.full(SHAPE, -960.0)
    hu[:, 3:-3, 3:-3] = 40
    hu[:, 8:-8, 7:21] = -850
    hu[:, 8:-8, 27:41] = -850
    hu[labels(count) > 0] = 30
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    return Volume((hu + noise).round().astype(np.int16), GRID)


def slices(index: int = 0, count: int = 2) -> list[Dataset]:
    """The chest of a patient as DICOM slices."""
    return dicom_slices(Phantom(index, seed=0), chest(count))


def write_series(
    folder: Path, held: Sequence[Dataset], change: Callable[[int, Dataset], None] | None = None
) -> list[Path]:
    """Write slices as files, each changed first; their names are in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, one in enumerate(held):
        if change:
            change(number, one)
        paths.append(folder / f"{(number * 7) % 97:03d}-{number}.dcm")
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_seg(path: Path, held: Sequence[Dataset], mask: NDArray[np.uint8]) -> Path:
    """Write a DICOM-SEG on these slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(seg_object(held, mask, Origin("test", "by hand", "1", "test"), salt="test"))
    return path


def write_patient(folder: Path, index: int, count: int = 2) -> str:
    """A series with its DICOM-SEG; returns the UID of the series."""
    held = slices(index, count)
    write_series(folder / f"patient-{index}/CT", held)
    write_seg(folder / f"patient-{index}/SEG/seg.dcm", held, labels(count))
    return str(held[0].SeriesInstanceUID)


def write_metaimage(path: Path, volume: Volume, header: Sequence[str] = ()) -> None:
    """A .mhd and .raw pair; lines of `header` come last and so replace earlier ones."""
    z, y, x = volume.grid.shape
    sz, sy, sx = volume.grid.spacing_mm
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"DimSize = {x} {y} {z}",
        f"ElementSpacing = {sx} {sy} {sz}",
        "Offset = {} {} {}".format(*volume.grid.origin_mm),
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "ElementType = MET_SHORT",
        "ElementByteOrderMSB = False",
        f"ElementDataFile = {path.stem}.raw",
        *header,
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    path.with_suffix(".raw").write_bytes(volume.hu.astype("<i2").tobytes())
