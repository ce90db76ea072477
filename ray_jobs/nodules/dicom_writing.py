"""Writing nodules as a DICOM-SEG object, one segment a nodule, with highdicom."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid


class UnwritableSegError(Exception):
    """A series lacks what a DICOM-SEG must repeat of it; the text says what, to follow the scan's name."""


@dataclass(frozen=True)
class Origin:
    """Who drew a mask."""

    maker: str
    """Manufacturer."""
    algorithm: str
    version: str
    description: str
    """What the reader of the object is to know first; a DICOM LO, at most 64 characters."""


def seg_object(slices: Sequence[Dataset], labels: NDArray[np.uint8], origin: Origin, salt: str) -> bytes:
    """A DICOM-SEG file of labels (z, y, x) on the slices of a series, in the order of the first axis.

    Without any nodule it has one empty segment, as the standard wants one. Its UIDs follow from the series and `salt`,
    and its times from the series: the same mask gives the same bytes. Raises UnwritableSegError.
    """
    salt = f"{slices[0].SeriesInstanceUID}/{salt}"
    try:
        seg = _segmentation(slices, labels, origin, salt)
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise UnwritableSegError(
            f"cannot be given a DICOM-SEG: {error}; export the series with all its headers"
        ) from error
    _settle(seg, slices[0], _uid(salt, "dimensions"))
    content = io.BytesIO()
    seg.save_as(content)
    return content.getvalue()


def _segmentation(slices: Sequence[Dataset], labels: NDArray[np.uint8], origin: Origin, salt: str) -> Segmentation:
    numbers = range(1, max(1, int(labels.max(initial=0))) + 1)
    return Segmentation(
        source_images=list(slices),
        pixel_array=labels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, origin, salt) for number in numbers],
        series_instance_uid=_uid(salt, "series"),
        series_number=900,
        sop_instance_uid=_uid(salt, "instance"),
        instance_number=1,
        manufacturer=origin.maker,
        manufacturer_model_name=origin.algorithm,
        software_versions=origin.version,
        device_serial_number="0",
        series_description=origin.description,
        content_description="Lung nodules",
        omit_empty_frames=bool(labels.any()),
    )


def _described(number: int, origin: Origin, salt: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=f"Nodule {number}",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=origin.algorithm, version=origin.version, family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=[codes.SCT.Lung],
        tracking_uid=_uid(salt, str(number)),
        tracking_id=f"Nodule {number}",
    )


def _settle(seg: Dataset, source: Dataset, dimensions_uid: str) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    date, time = str(source.get("StudyDate") or "20000101"), str(source.get("StudyTime") or "000000")
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(seg, keyword, date)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(seg, keyword, time)
    for row in seg.get("ContributingEquipmentSequence") or ():
        row.ContributionDateTime = date + time
    for row in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        row.DimensionOrganizationUID = dimensions_uid


def _uid(*sources: str) -> str:
    return str(generate_uid(entropy_srcs=list(sources)))
