"""Phantoms as a hospital sends scans: a DICOM series with a DICOM-SEG for most, NIfTI with a mask for some."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dhctl.ray_jobs.nodules.phantoms import WHAT_THEY_ARE, Chest, render
from dhctl.ray_jobs.nodules.table import TABLE
from dhctl.ray_jobs.nodules.volume import Grid, Volume
from dhctl.ray_jobs.storage import Store

NIFTI_EVERY = 6
"""Every sixth patient comes as NIfTI."""

NODULES = (1, 2, 3, 2)
"""Nodules of a patient, in turn."""

INTERCEPT_HU = -1024
"""Stored values are HU plus 1024, as most scanners write them."""


@dataclass(frozen=True)
class Phantom:
    """One patient to generate, with one scan."""

    index: int
    seed: int

    @property
    def patient(self) -> str:
        """Who it is."""
        return f"phantom-{self.index:03d}"

    @property
    def is_nifti(self) -> bool:
        """Whether it comes as NIfTI."""
        return self.index % NIFTI_EVERY == NIFTI_EVERY - 1

    @property
    def scan(self) -> str:
        """SeriesInstanceUID, or name of the NIfTI file."""
        return f"scan-{self.index:03d}" if self.is_nifti else self.uid("series")

    def uid(self, *what: object) -> str:
        """A UID that follows from the seed."""
        return str(generate_uid(entropy_srcs=["dhctl phantom", str(self.seed), str(self.index), *map(str, what)]))


@dataclass(frozen=True)
class PhantomTask:
    """A phantom and the folder it goes to."""

    phantom: Phantom
    store: Store


def plan_phantoms(patients: int, seed: int) -> list[Phantom]:
    """The phantoms of a seed."""
    return [Phantom(index, seed) for index in range(patients)]


def write_phantom(task: PhantomTask) -> str:
    """Generate one patient into the store; returns the name of the scan."""
    phantom, store = task.phantom, task.store
    rng = np.random.default_rng([phantom.seed, phantom.index])
    chest = render(rng, NODULES[phantom.index % len(NODULES)])
    if phantom.is_nifti:
        store.write(f"{phantom.scan}.nii.gz", nifti(chest.volume.hu, chest.volume.grid))
        store.write(f"{phantom.scan}_mask.nii.gz", nifti(chest.lesions, chest.volume.grid))
        return phantom.scan
    slices = dicom_slices(phantom, chest.volume)
    # Names say nothing of the order, as in most exports.
    for slice_ in slices:
        store.write(f"{phantom.patient}/CT/{slice_.SOPInstanceUID}.dcm", _saved(slice_))
    store.write(f"{phantom.patient}/SEG/nodules.dcm", _seg(slices, chest))
    return phantom.scan


def write_table(store: Store, phantoms: Sequence[Phantom]) -> None:
    """Write scans.csv, which names the patients; it is written last and marks the folder as complete."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["series", "patient"])
    table.writerows([phantom.scan, phantom.patient] for phantom in phantoms)
    store.write(TABLE, text.getvalue().encode())


def dicom_slices(phantom: Phantom, volume: Volume) -> list[Dataset]:
    """One CT slice a DICOM data set, in the order of the volume."""
    return [_slice(phantom, volume, index) for index in range(volume.grid.shape[0])]


def nifti(values: NDArray[np.generic], grid: Grid) -> bytes:
    """A compressed NIfTI file of an array (z, y, x)."""
    steps = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)[:, None]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps[::-1].T, grid.origin_mm
    affine[:2] *= -1  # LPS to RAS
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _slice(phantom: Phantom, volume: Volume, index: int) -> Dataset:
    grid = volume.grid
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, phantom.uid("slice", index)
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.Modality, one.Manufacturer, one.SeriesDescription = "CT", "dhctl", WHAT_THEY_ARE
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = phantom.patient, "PHANTOM^", "", ""
    one.StudyInstanceUID, one.SeriesInstanceUID = phantom.uid("study"), phantom.uid("series")
    one.FrameOfReferenceUID, one.PositionReferenceIndicator = phantom.uid("frame"), ""
    one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID = "20000101", "000000", "", "1"
    one.ReferringPhysicianName = ""
    # Scanners count from the head down, while positions grow upwards.
    one.SeriesNumber, one.InstanceNumber = 1, grid.shape[0] - index
    one.ImageOrientationPatient = [*grid.direction[2], *grid.direction[1]]
    one.ImagePositionPatient = [round(float(value), 6) for value in grid.to_patient([index, 0, 0])]
    one.PixelSpacing = [round(value, 8) for value in grid.spacing_mm[1:]]
    one.SliceThickness = grid.spacing_mm[0]
    one.Rows, one.Columns = grid.shape[1:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.RescaleIntercept, one.RescaleSlope, one.RescaleType = INTERCEPT_HU, 1, "HU"
    one.PixelData = np.clip(volume.hu[index] - INTERCEPT_HU, 0, 4095).astype("<u2").tobytes()
    return one


def _seg(slices: Sequence[Dataset], chest: Chest) -> bytes:
    # Imported here: highdicom takes a second, and the reader of these modules does without it.
    from dhctl.ray_jobs.nodules.dicom_writing import Origin, seg_object

    return seg_object(slices, chest.lesions, Origin("dhctl", "phantoms", "1", WHAT_THEY_ARE), salt="truth")


def _saved(slice_: Dataset) -> bytes:
    content = io.BytesIO()
    slice_.save_as(content, enforce_file_format=True)
    return content.getvalue()
