"""What a scan is made of, before it is read: its files, its patient, and where its nodules are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.volume import Vector, Volume
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.storage import StoredFile


@dataclass(frozen=True)
class Skipped:
    """A scan that is left out, and why."""

    scan: str
    reason: str


@dataclass(frozen=True)
class Source:
    """One scan of a data store."""

    scan: str
    """SeriesInstanceUID, or the name of its file without ending."""
    patient: str
    form: Literal["dicom", "nifti", "metaimage"]
    files: tuple[StoredFile, ...]
    """The slices of a series; or the volume's file first."""
    masks: tuple[StoredFile, ...] = ()
    """DICOM-SEG objects, or the NIfTI mask."""
    nodules: tuple[Blob, ...] | None = None
    """LUNA16's annotations; None where nodules are in masks or are not known."""
    lookalikes_mm: tuple[Vector, ...] = ()
    """LUNA16's candidates that are no nodules, in patient coordinates."""
    part: Part | None = None
    """Where a table says it."""

    @property
    def keys(self) -> list[str]:
        """Keys of all files, those of masks last."""
        return [file.key for file in (*self.files, *self.masks)]


@dataclass(frozen=True)
class Found:
    """What a data store holds."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Scan:
    """A scan that has been read, with its nodules."""

    volume: Volume
    labels: NDArray[np.uint8]
    """Number of the nodule at each voxel (z, y, x), 0 elsewhere."""


def read_volume(source: Source, paths: Sequence[Path]) -> Volume:
    """The volume of a scan from its staged files. Raises UnusableScanError, OSError."""
    match source.form:
        case "dicom":
            from dhctl.ray_jobs.nodules.dicom_series import read_series

            return read_series(paths).volume
        case "nifti":
            from dhctl.ray_jobs.nodules.nifti import read_nifti

            return read_nifti(paths[0])
        case "metaimage":
            from dhctl.ray_jobs.nodules.metaimage import read_metaimage

            return read_metaimage(paths[0])


def read_scan(source: Source, paths: Sequence[Path], words: Sequence[str]) -> Scan:
    """A scan with its nodules, from its staged files and masks. Raises UnusableScanError, OSError."""
    from dhctl.ray_jobs.nodules.labels import balls, numbered

    files, masks = paths[: len(source.files)], paths[len(source.files) :]
    if source.form == "dicom":
        from dhctl.ray_jobs.nodules.dicom_seg import read_seg
        from dhctl.ray_jobs.nodules.dicom_series import read_series

        series = read_series(files)
        drawn = [read_seg(mask, series, words) for mask in masks]
        return Scan(series.volume, numbered(np.logical_or.reduce(drawn)))
    volume = read_volume(source, files)
    if source.nodules is not None:
        return Scan(volume, balls(source.nodules, volume.grid))
    from dhctl.ray_jobs.nodules.nifti import read_nifti_mask

    return Scan(volume, numbered(read_nifti_mask(masks[0], volume.grid)))
