"""NIfTI and MetaImage: the same chest lies at the same place, and broken files are refused with a sentence."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.labels import balls, numbered
from dhctl.ray_jobs.nodules.metaimage import read_metaimage
from dhctl.ray_jobs.nodules.nifti import read_nifti, read_nifti_mask
from dhctl.ray_jobs.nodules.phantom_files import nifti
from dhctl.ray_jobs.nodules.volume import Grid, UnusableScanError
from jobs.sample_scans import AXIAL, GRID, NODULES, chest, labels, write_metaimage


def test_nifti_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(nifti(chest().hu, GRID))
    volume = read_nifti(path)
    # Canonical NIfTI has its axes to the right, front and head, so that two of ours are turned round.
    assert volume.grid.shape == GRID.shape
    for middle in NODULES:
        z, y, x = np.rint(volume.grid.to_index(GRID.to_patient(middle))).astype(int)
        assert volume.hu[z, y, x] == chest().hu[middle]
    path.write_bytes(nifti(labels(), GRID))
    assert read_nifti_mask(path, volume.grid).sum() == (labels() > 0).sum()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_axes_in_any_order(axes: tuple[int, int, int], tmp_path: Path) -> None:
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti(chest().hu, GRID)))
    turned = nibabel.Nifti1Image(np.asanyarray(image.dataobj).transpose(axes), image.affine[:, [*axes, 3]])
    nibabel.save(turned, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.grid.spacing_mm == pytest.approx(GRID.spacing_mm)
    index = np.rint(volume.grid.to_index(GRID.to_patient(NODULES[0]))).astype(int)
    assert volume.hu[tuple(index)] == chest().hu[NODULES[0]]


def test_a_mask_must_lie_on_its_scan(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(nifti(chest().hu, GRID))
    grid = read_nifti(tmp_path / "scan.nii.gz").grid
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(nifti(labels()[:, :, 1:], GRID))
    with pytest.raises(
        UnusableScanError, match=r"another size: 12 x 40 x 47 voxels \(z, y, x\), 12 x 40 x 48 in the scan"
    ):
        read_nifti_mask(mask, grid)
    mask.write_bytes(nifti(labels(), Grid(GRID.shape, GRID.spacing_mm, (-55.0, -50.0, -200.0), AXIAL)))
    with pytest.raises(UnusableScanError, match=r"lies 5\.0 mm beside it"):
        read_nifti_mask(mask, grid)


def test_broken_nifti(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    whole = nifti(chest().hu, GRID)
    flat = nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), dtype=np.int16), np.eye(4)).to_bytes()
    zero = nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype=np.int16), np.diag([1.0, 1, 30, 1])).to_bytes()
    for content, sentence in (
        (b"", "cannot be read: a.nii.gz"),
        (b"not a scan", "cannot be read: a.nii.gz"),
        (whole[: len(whole) // 2], "cannot be read: a.nii.gz"),
        (gzip.compress(flat), "has 4 dimensions in a.nii.gz"),
        (gzip.compress(zero), "has the spacing 30 x 1 x 1 mm"),
    ):
        path.write_bytes(content)
        with pytest.raises(UnusableScanError) as caught:
            read_nifti(path)
        assert sentence in str(caught.value)


def test_metaimage_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_metaimage(tmp_path / "a.mhd", chest())
    volume = read_metaimage(tmp_path / "a.mhd")
    assert np.array_equal(volume.hu, chest().hu)
    assert volume.grid == GRID


def test_compressed_big_endian_and_turned_metaimage(tmp_path: Path) -> None:
    header = ["CompressedData = True", "BinaryDataByteOrderMSB = True", "ElementDataFile = a.zraw"]
    write_metaimage(tmp_path / "a.mhd", chest(), [*header, "TransformMatrix = -1 0 0 0 -1 0 0 0 1"])
    (tmp_path / "a.zraw").write_bytes(zlib.compress(chest().hu.astype(">i2").tobytes()))
    volume = read_metaimage(tmp_path / "a.mhd")
    assert np.array_equal(volume.hu, chest().hu)
    assert volume.grid.to_patient([0, 1, 1]) == pytest.approx([-62.5, -52.5, -200])


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (["NDims = 2"], "has 2 dimensions"),
        (["DimSize = 48 40"], "has no DimSize of 3 numbers"),
        (["DimSize = 48 40 13"], "has 46080 bytes in a.raw, but its header says 49920"),
        (["ElementSpacing = 0 0 0"], "has the spacing 0 x 0 x 0 mm"),
        (["ElementSpacing = one 1 1"], "has no ElementSpacing of 3 numbers"),
        (["ElementType = MET_LONG"], "has the ElementType 'MET_LONG'; use one of MET_CHAR"),
        (["ElementDataFile = b.raw"], "has the data file b.raw, which cannot be read"),
        (["ElementDataFile = ../b.raw"], "has the ElementDataFile '../b.raw'"),
        (["ElementDataFile = LOCAL"], "has the ElementDataFile 'LOCAL'"),
        (["CompressedData = True"], "has the data file a.raw, which cannot be read"),
    ],
)
def test_broken_metaimage(header: Sequence[str], sentence: str, tmp_path: Path) -> None:
    write_metaimage(tmp_path / "a.mhd", chest(), header)
    with pytest.raises(UnusableScanError) as caught:
        read_metaimage(tmp_path / "a.mhd")
    assert sentence in str(caught.value)


def test_balls_lie_where_a_table_says() -> None:
    centre = tuple(float(value) for value in GRID.to_patient(NODULES[0]))
    found = balls([Blob(centre, 10.0), Blob((0.0, 0.0, -185.0), 0.5)], GRID)  # type: ignore[arg-type]
    assert np.array_equal(found == 1, labels() == 1)
    assert (found == 2).sum() == 1, "one voxel at least"
    with pytest.raises(UnusableScanError, match=r"does not hold the nodule at \(0\.0, 0\.0, 50\.0\) mm"):
        balls([Blob((0.0, 0.0, 50.0), 5.0)], GRID)


def test_a_mask_of_dust_is_refused() -> None:
    dust = np.zeros((20, 20, 20), dtype=bool)
    dust[::2, ::2, ::2] = True
    with pytest.raises(UnusableScanError, match="1000 separate pieces"):
        numbered(dust)
