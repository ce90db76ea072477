"""Reading nodules from a DICOM-SEG object. DICOM PS3.3: C.8.20 (segments), C.7.6.16 (frames)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dhctl.ray_jobs.nodules.dicom_series import Series, read_file
from dhctl.ray_jobs.nodules.volume import UnusableScanError

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP class of a segmentation whose pixels hold segment numbers; DICOM has it since 2024d."""

SAME_PLANE = 0.1
"""A frame may be off its slice by this share of the slice spacing."""


def referenced_series(header: Dataset) -> tuple[str, ...]:
    """UIDs of the series that a DICOM-SEG says it was drawn on."""
    rows = header.get("ReferencedSeriesSequence") or ()
    return tuple(str(row.SeriesInstanceUID) for row in rows if "SeriesInstanceUID" in row)


def read_seg(path: Path, series: Series, words: Sequence[str]) -> NDArray[np.bool_]:
    """The voxels (z, y, x) of the segments that are nodules, on the grid of the series.

    A segment is one when its label or its type has one of `words`. Raises UnusableScanError.
    """
    seg = read_file(path)
    if seg.get("SOPClassUID") not in (SegmentationStorage, LABEL_MAP_STORAGE):
        raise UnusableScanError(f"has the mask {path.name}, which is no DICOM-SEG")
    if series.uid not in referenced_series(seg):
        others = ", ".join(referenced_series(seg)) or "none"
        raise UnusableScanError(f"has the DICOM-SEG {path.name}, which refers to another series ({others})")
    _, rows, columns = series.volume.grid.shape
    if (seg.Rows, seg.Columns) != (rows, columns):
        raise UnusableScanError(
            f"has a mask of another size: {seg.Rows} x {seg.Columns} pixels in {path.name}, "
            f"{rows} x {columns} in the scan"
        )
    chosen = nodule_segments(seg, words)
    if not chosen:
        labels = ", ".join(sorted({str(row.get("SegmentLabel", "?")) for row in seg.SegmentSequence}))
        raise UnusableScanError(
            f"has no segment of a nodule in {path.name}, only: {labels}; name their words in job.params.nodule_words"
        )
    return _mask(seg, series, chosen, path.name)


def nodule_segments(seg: Dataset, words: Sequence[str]) -> set[int]:
    """Numbers of the segments whose label or type has one of the words."""

    def told(segment: Dataset) -> str:
        kinds = segment.get("SegmentedPropertyTypeCodeSequence") or ()
        return " ".join([str(segment.get("SegmentLabel", "")), *(str(kind.get("CodeMeaning", "")) for kind in kinds)])

    return {
        int(segment.SegmentNumber)
        for segment in seg.SegmentSequence
        if any(word.lower() in told(segment).lower() for word in words)
    }


def _mask(seg: Dataset, series: Series, chosen: set[int], name: str) -> NDArray[np.bool_]:
    try:
        frames = seg.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError, KeyError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(" .:")
        raise UnusableScanError(f"has a mask that cannot be decoded, {name}: {first}; send it again") from error
    frames = frames.reshape(-1, *frames.shape[-2:])
    mask = np.zeros(series.volume.grid.shape, dtype=bool)
    labelmap = seg.SOPClassUID == LABEL_MAP_STORAGE
    # A fractional mask holds 0 to MaximumFractionalValue; more than half of it is nodule.
    least = int(seg.get("MaximumFractionalValue", 1)) / 2 if seg.get("SegmentationType") == "FRACTIONAL" else 0.5
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        if labelmap:
            mask[_slice_of(seg, groups, series, name)] |= np.isin(frame, list(chosen))
        elif _segment_of(seg, groups) in chosen and (frame >= least).any():
            mask[_slice_of(seg, groups, series, name)] |= frame >= least
    return mask


def _segment_of(seg: Dataset, groups: Dataset) -> int:
    return int(_group(seg, groups, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _slice_of(seg: Dataset, groups: Dataset, series: Series, name: str) -> int:
    """The slice of the series on which a frame lies. Raises UnusableScanError where there is none."""
    grid = series.volume.grid
    orientation = np.asarray(
        _group(seg, groups, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float
    ).reshape(2, 3)
    index = grid.to_index(_group(seg, groups, "PlanePositionSequence").ImagePositionPatient)
    nearest = int(np.rint(index[0]))
    on_slice = abs(index[0] - nearest) <= SAME_PLANE and 0 <= nearest < grid.shape[0]
    if not (
        on_slice and np.abs(index[1:]).max() < 0.5 and np.allclose(orientation[::-1], grid.direction[1:], atol=1e-3)
    ):
        raise UnusableScanError(f"has a mask that does not lie on its slices, {name}; draw it on this series")
    return nearest


def _group(seg: Dataset, groups: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame, or the one that all frames share."""
    for holder in (groups, *(seg.get("SharedFunctionalGroupsSequence") or ())):
        if holder.get(keyword):
            item: Dataset = holder[keyword].value[0]
            return item
    raise UnusableScanError(f"has a DICOM-SEG without {keyword}; export it again")
