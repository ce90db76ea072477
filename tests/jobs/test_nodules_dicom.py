"""CT series and DICOM-SEG objects: read as they are meant, and refused with a sentence where they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dhctl.ray_jobs.nodules.dicom_seg import read_seg
from dhctl.ray_jobs.nodules.dicom_series import read_series
from dhctl.ray_jobs.nodules.labels import numbered
from dhctl.ray_jobs.nodules.settings import settings_from
from dhctl.ray_jobs.nodules.volume import UnusableScanError
from jobs.sample_scans import GRID, chest, labels, slices, write_seg, write_series

WORDS = settings_from({}).nodule_words


def test_a_series_is_sorted_by_position_and_in_hounsfield_units(tmp_path: Path) -> None:
    series = read_series(write_series(tmp_path, slices()))
    assert np.array_equal(series.volume.hu, chest().hu)
    assert series.volume.grid.shape == GRID.shape
    assert series.volume.grid.spacing_mm == pytest.approx(GRID.spacing_mm)
    assert series.volume.grid.origin_mm == pytest.approx(GRID.origin_mm)
    assert [int(one.InstanceNumber) for one in series.slices] == list(range(12, 0, -1)), "not by instance number"


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    def rescaled(_: int, one: Dataset) -> None:
        one.RescaleSlope, one.RescaleIntercept = 0.5, -512

    series = read_series(write_series(tmp_path, slices(), rescaled))
    assert np.abs(series.volume.hu - chest().hu / 2).max() <= 0.5


def moved(number: int, by_mm: float) -> Callable[[int, Dataset], None]:
    def change(index: int, one: Dataset) -> None:
        if index >= number:
            x, y, z = one.ImagePositionPatient
            one.ImagePositionPatient = [x, y, z + by_mm]

    return change


def turned(index: int, one: Dataset) -> None:
    if index == 11:
        one.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def tilted(index: int, one: Dataset) -> None:
    x, y, z = one.ImagePositionPatient
    one.ImagePositionPatient = [x, y + index, z]


def put(keyword: str, value: object, only: int | None = None) -> Callable[[int, Dataset], None]:
    def change(index: int, one: Dataset) -> None:
        if only is None or index == only:
            setattr(one, keyword, value)

    return change


def short(index: int, one: Dataset) -> None:
    if index == 4:
        one.PixelData = one.PixelData[:100]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (turned, r"different orientations \(1 of 12 differ"),
        (moved(5, 3.0), r"lacks 1 slices, the first between -188\.0 and -182\.0 mm"),
        (moved(5, 1.3), r"irregular slice spacing: usually 3\.00 mm, but 4\.30 mm"),
        (moved(11, -3.0), "two slices at"),
        (tilted, "tilted gantry"),
        (put("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), "two slices at|shifted against each other"),
        (put("PixelSpacing", [0, 0]), "has the spacing 3 x 0 x 0 mm"),
        (put("PixelSpacing", [0.7, 0.7], only=3), "different sizes or pixel spacings: 40 x 48 at 0.7 x 0.7 mm"),
        (put("PixelSpacing", None), "has no PixelSpacing in the file"),
        (put("RescaleIntercept", None), "has no RescaleIntercept"),
        (put("NumberOfFrames", 4), "several frames"),
        (short, "cannot be decoded in instance 8"),
    ],
)
def test_a_bad_series_is_refused(change: Callable[[int, Dataset], None], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableScanError, match=sentence):
        read_series(write_series(tmp_path, slices(), change))


def test_missing_slices_are_told_from_irregular_ones(tmp_path: Path) -> None:
    paths = write_series(tmp_path, slices())
    with pytest.raises(UnusableScanError, match=r"lacks 3 slices"):
        read_series([path for number, path in enumerate(paths) if number not in (4, 5, 8)])


def test_an_unreadable_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, slices())
    paths[2].write_bytes(b"not DICOM")
    with pytest.raises(UnusableScanError, match=f"has the file {paths[2].name}, which cannot be read"):
        read_series(paths)


def test_a_seg_comes_back_as_it_was_written(tmp_path: Path) -> None:
    held = slices()
    seg = write_seg(tmp_path / "seg.dcm", held, labels())
    series = read_series(write_series(tmp_path / "ct", held))
    assert np.array_equal(read_seg(seg, series, WORDS), labels() > 0)
    assert np.array_equal(numbered(read_seg(seg, series, WORDS)) > 0, labels() > 0)
    assert numbered(read_seg(seg, series, WORDS)).max() == 2
    written = pydicom.dcmread(seg)
    assert [str(row.SegmentLabel) for row in written.SegmentSequence] == ["Nodule 1", "Nodule 2"]
    assert written.SegmentationType == "BINARY"
    assert int(written.NumberOfFrames) < 2 * len(held), "empty frames are left out"


def test_a_seg_without_a_nodule_is_empty(tmp_path: Path) -> None:
    held = slices(count=0)
    seg = write_seg(tmp_path / "seg.dcm", held, labels(0))
    series = read_series(write_series(tmp_path / "ct", held))
    assert not read_seg(seg, series, WORDS).any()


def test_the_same_mask_gives_the_same_file(tmp_path: Path) -> None:
    first, again = (write_seg(tmp_path / f"{name}.dcm", slices(), labels()).read_bytes() for name in "ab")
    assert first == again


def test_fractional_masks_and_label_maps(tmp_path: Path) -> None:
    from highdicom.seg import SegmentationTypeValues

    from dhctl.ray_jobs.nodules import dicom_writing

    held = slices()
    series = read_series(write_series(tmp_path / "ct", held))
    origin = dicom_writing.Origin("test", "by hand", "1", "test")
    for kind, pixels in (
        (SegmentationTypeValues.FRACTIONAL, (labels() == 1) * 0.8 + (labels() == 2) * 0.3),
        (SegmentationTypeValues.LABELMAP, (labels() == 1).astype(np.uint8)),
    ):
        seg = dicom_writing.Segmentation(
            source_images=held,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=[dicom_writing._described(1, origin, "test")],
            series_instance_uid="1.2.3",
            series_number=1,
            sop_instance_uid="1.2.4",
            instance_number=1,
            manufacturer="test",
            manufacturer_model_name="test",
            software_versions="1",
            device_serial_number="0",
        )
        seg.save_as(tmp_path / "seg.dcm")
        assert np.array_equal(read_seg(tmp_path / "seg.dcm", series, WORDS), labels() == 1), kind


def changed_seg(tmp_path: Path, change: Callable[[Dataset], None]) -> Path:
    path = write_seg(tmp_path / "seg.dcm", slices(), labels())
    seg = pydicom.dcmread(path)
    change(seg)
    seg.save_as(path)
    return path


def other_series(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def other_words(seg: Dataset) -> None:
    for row in seg.SegmentSequence:
        row.SegmentLabel = "Liver"
        row.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Liver"


def beside(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = [-60, -50, -100]


def no_pixels(seg: Dataset) -> None:
    seg.PixelData = seg.PixelData[:10]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_series, r"has the DICOM-SEG seg.dcm, which refers to another series \(1\.2\.3\)"),
        (other_words, "has no segment of a nodule in seg.dcm, only: Liver"),
        (beside, "does not lie on its slices"),
        (no_pixels, "has a mask that cannot be decoded"),
    ],
)
def test_a_bad_seg_is_refused(change: Callable[[Dataset], None], sentence: str, tmp_path: Path) -> None:
    series = read_series(write_series(tmp_path / "ct", slices()))
    with pytest.raises(UnusableScanError, match=sentence):
        read_seg(changed_seg(tmp_path, change), series, WORDS)


def test_a_seg_of_another_size_is_refused(tmp_path: Path) -> None:
    seg = write_seg(tmp_path / "seg.dcm", slices(), labels())

    def smaller(_: int, one: Dataset) -> None:
        one.Columns = 40
        one.PixelData = one.PixelData[: 40 * 40 * 2]

    series = read_series(write_series(tmp_path / "ct", slices(), smaller))
    with pytest.raises(UnusableScanError, match=r"another size: 40 x 48 pixels in seg\.dcm, 40 x 40 in the scan"):
        read_seg(seg, series, WORDS)


def test_a_slice_is_no_seg(tmp_path: Path) -> None:
    paths = write_series(tmp_path, slices())
    with pytest.raises(UnusableScanError, match="which is no DICOM-SEG"):
        read_seg(paths[0], read_series(paths), WORDS)
