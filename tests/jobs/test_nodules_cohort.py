"""From a data folder to shards: what is found, whose it is, what is left out and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pyarrow import fs

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules import cohort as module
from dhctl.ray_jobs.nodules.cohort import Cohort, find_sources, prepare, read_cohort
from dhctl.ray_jobs.nodules.phantom_files import PhantomTask, nifti, plan_phantoms, write_phantom, write_table
from dhctl.ray_jobs.nodules.preparation import ScanTask, prepare_scan
from dhctl.ray_jobs.nodules.settings import settings_from
from dhctl.ray_jobs.nodules.shards import LOOKALIKE, ShardReader
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.storage import Store, open_store
from jobs.sample_scans import (
    GRID,
    NODULES,
    chest,
    labels,
    slices,
    write_metaimage,
    write_patient,
    write_seg,
    write_series,
)

SETTINGS = settings_from({"validation_share": 0.25, "test_share": 0.25})


def prepared(folder: Path) -> Cohort:
    data, shards = open_store(str(folder / "data")), open_store(str(folder / "shards"))
    return prepare(data, shards, SETTINGS, InThisProcess())


def reasons(cohort: Cohort) -> dict[str, str]:
    return {row.scan: row.reason for row in cohort.skipped}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five patients with a series and a SEG each."""
    for index in range(5):
        write_patient(tmp_path / "data", index)
    return tmp_path / "data"


def test_dicom_patients_are_found_and_split(data: Path, tmp_path: Path) -> None:
    cohort = prepared(tmp_path)
    assert cohort.skipped == ()
    assert sorted(scan.patient for scan in cohort.scans) == [f"phantom-{index:03d}" for index in range(5)]
    assert [len(cohort.part(part)) for part in ("train", "validation", "test")] == [3, 1, 1]
    assert read_cohort(open_store(str(tmp_path / "shards")), SETTINGS) == cohort
    note = cohort.scans[0].shard
    assert len(note.nodules) == 2
    for nodule, middle in zip(sorted(note.nodules, key=lambda one: one.centre_mm), NODULES, strict=True):
        assert nodule.centre_mm == pytest.approx(GRID.to_patient(middle), abs=1.0)
        assert nodule.diameter_mm == pytest.approx(10, abs=1.5)


def test_a_shard_holds_the_lungs_at_the_wanted_spacing(data: Path, tmp_path: Path) -> None:
    note = prepared(tmp_path).scans[0].shard
    reader = ShardReader(open_store(str(tmp_path / "shards")))
    arrays = reader.whole(note)
    assert note.grid.spacing_mm == (2.0, 2.0, 2.0)
    assert arrays.hu.shape == arrays.labels.shape == arrays.lungs.shape == note.grid.shape
    assert arrays.labels.max() == 2
    assert (arrays.hu[arrays.labels > 0] > -300).mean() > 0.8
    assert (arrays.hu[arrays.lungs & (arrays.labels == 0)] < -300).mean() > 0.8
    part = reader.box(note, (slice(3, 9), slice(2, 30), slice(4, 20)))
    assert np.array_equal(part.hu, arrays.hu[3:9, 2:30, 4:20])
    assert np.array_equal(part.labels, arrays.labels[3:9, 2:30, 4:20])
    assert np.array_equal(part.lungs, arrays.lungs[3:9, 2:30, 4:20])
    points = reader.points(note)
    assert (arrays.labels[tuple(points[points[:, 0] == 0, 1:].T)] > 0).all()
    assert (arrays.labels[tuple(points[points[:, 0] != 0, 1:].T)] == 0).all()


def test_stores_that_are_no_folder_give_the_same(data: Path, tmp_path: Path) -> None:
    local = prepared(tmp_path)
    (tmp_path / "remote").mkdir()
    elsewhere = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    remote = Store(elsewhere, "remote", "s3://bucket/remote")
    cohort = prepare(Store(elsewhere, "data", "s3://bucket/data"), remote, SETTINGS, InThisProcess())
    assert cohort == local
    note = cohort.scans[0].shard
    near, far = ShardReader(open_store(str(tmp_path / "shards"))), ShardReader(remote)
    box = (slice(5, 9), slice(2, 30), slice(4, 20))
    assert np.array_equal(far.box(note, box).hu, near.box(note, box).hu)
    assert np.array_equal(far.whole(note).labels, near.whole(note).labels)
    assert np.array_equal(far.points(note), near.points(note))


def test_what_is_prepared_is_not_prepared_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path)
    asked: list[ScanTask] = []

    def counted(task: ScanTask) -> object:
        asked.append(task)
        return prepare_scan(task)

    monkeypatch.setattr(module, "prepare_scan", counted)
    assert prepared(tmp_path) == first
    assert asked == []
    write_patient(data, 9)
    assert prepared(tmp_path).digest != first.digest
    assert [task.source.patient for task in asked] == ["phantom-009"]


def test_a_copy_of_the_data_has_the_same_digest(data: Path, tmp_path: Path) -> None:
    first = prepared(tmp_path)
    (tmp_path / "copy").mkdir()
    shutil.copytree(data, tmp_path / "copy/moved/data", copy_function=shutil.copy)
    again = prepared(tmp_path / "copy/moved")
    assert again.digest == first.digest
    assert {scan.shard.key for scan in again.scans} != {scan.shard.key for scan in first.scans}, "times differ"


def test_bad_series_are_named_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    (first, second, third, fourth) = (str(slices(index)[0].SeriesInstanceUID) for index in range(5, 9))
    write_series(data / "no-seg", slices(5))
    write_series(data / "gap/CT", slices(6)[:4] + slices(6)[6:])
    write_seg(data / "gap/seg.dcm", slices(6), labels())
    write_series(data / "other/CT", slices(7))
    write_seg(data / "other/seg.dcm", slices(7), labels())
    seg = pydicom.dcmread(data / "other/seg.dcm")
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    seg.save_as(data / "other/seg.dcm")
    write_series(data / "twice/CT", slices(8), lambda index, one: setattr(one, "PatientID", f"p{index % 2}"))
    (data / "broken.dcm").write_bytes(b"not DICOM")
    (data / "notes.txt").write_text("passed over")
    found = reasons(prepared(tmp_path))
    assert found[first].startswith("has no DICOM-SEG; draw its nodules")
    assert found[second].startswith("lacks 2 slices")
    assert found[third] == "has no DICOM-SEG: other/seg.dcm of its study refers to another series (1.2.3)"
    assert found["other/seg.dcm"] == "is a DICOM-SEG of the series 1.2.3, which is not here"
    assert found[fourth].startswith("has slices of 2 patients")
    assert found["broken.dcm"].startswith("cannot be read as DICOM")
    assert len(found) == 6


def test_a_table_gives_parts_and_names_what_is_not_there(data: Path, tmp_path: Path) -> None:
    uids = [str(slices(index)[0].SeriesInstanceUID) for index in range(5)]
    rows = [f"{uid},{part}" for uid, part in zip(uids, ["train", "train", "test", "validation"], strict=False)]
    (data / "scans.csv").write_text("\n".join(["series,part", *rows, "1.2.3,train"]))
    cohort = prepared(tmp_path)
    assert [scan.shard.scan for scan in cohort.part("test")] == [uids[2]]
    assert len(cohort.scans) == 4, "a series that the table does not name is not used"
    assert reasons(cohort) == {"1.2.3": "is in scans.csv, but no scan of this id is here"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scan,part\n1,train", "it needs series, and patient or part"),
        ("series,part\n,train", "line 2: the series is empty"),
        ("series,part\n1.2.3,exam", "line 2: the part is 'exam'; use train, validation, test"),
        ("series,part\n1.2.3,test\n1.2.3,test", "line 3: series 1.2.3 is there twice"),
        ("series,part\n1.2.3,test\n1.2.4,", "gives a part for some series only"),
        ("series,part\n1.2.3,test", "no usable scan is left"),
    ],
)
def test_a_broken_table(text: str, sentence: str, data: Path, tmp_path: Path) -> None:
    (data / "scans.csv").write_text(text)
    with pytest.raises(RefusedInputError) as caught:
        prepared(tmp_path)
    assert sentence in str(caught.value)


def test_a_patient_in_train_and_test_is_refused(data: Path, tmp_path: Path) -> None:
    first, second = (str(slices(index)[0].SeriesInstanceUID) for index in range(2))
    (data / "scans.csv").write_text(f"series,patient,part\n{first},anna,train\n{second},anna,test\n")
    with pytest.raises(
        RefusedInputError, match=f"series {first} in train and {second} in test, but both are of one patient"
    ):
        prepared(tmp_path)


def test_parts_without_nodules_are_refused(tmp_path: Path) -> None:
    uids = [write_patient(tmp_path / "data", index, count=index % 2) for index in range(4)]
    parts = ("test", "train", "test", "validation")
    rows = [f"{uid},{part}" for uid, part in zip(uids, parts, strict=True)]
    (tmp_path / "data/scans.csv").write_text("\n".join(["series,part", *rows]))
    with pytest.raises(RefusedInputError, match="the test part has 2 scans but no nodule"):
        prepared(tmp_path)


def test_too_few_patients(tmp_path: Path) -> None:
    write_patient(tmp_path / "data", 0)
    with pytest.raises(RefusedInputError, match="part of the split is empty with 1 patients"):
        prepared(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RefusedInputError, match="holds no scan; put DICOM series"):
        prepared(tmp_path)


def test_nifti_beside_its_mask_or_in_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = (
        ("a.nii.gz", "a_mask.nii.gz"),
        ("imagesTr/b.nii.gz", "labelsTr/b.nii.gz"),
        ("images/c.nii.gz", "masks/c.nii.gz"),
        ("d.nii.gz", "d-seg.nii.gz"),
    )
    for scan, mask in places:
        for key, content in ((scan, nifti(chest().hu, GRID)), (mask, nifti(labels(), GRID))):
            (tmp_path / "data" / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / key).write_bytes(content)
    (tmp_path / "data/e.nii.gz").write_bytes(nifti(chest().hu, GRID))
    (tmp_path / "data/f.nii.gz").write_bytes(nifti(chest().hu, GRID))
    (tmp_path / "data/f_mask.nii.gz").write_bytes(nifti(labels()[1:], GRID))
    cohort = prepared(tmp_path)
    assert sorted(scan.shard.scan for scan in cohort.scans) == ["a", "b", "c", "d"]
    assert reasons(cohort)["e"] == "has no mask; put it beside the scan as e_mask.nii.gz"
    assert reasons(cohort)["f"].startswith("has a mask of another size")
    assert "count as a patient each" in capsys.readouterr().out


def luna16(folder: Path, candidates: bool = True) -> None:
    for name in "abcd":
        write_metaimage(folder / f"subset0/{name}.mhd", chest())
        write_metaimage(folder / f"seg-lungs-LUNA16/{name}.mhd", chest())
    places = [GRID.to_patient(middle) for middle in NODULES]
    rows = [f"{name},{x},{y},{z},9.5" for name in "abc" for x, y, z in places]
    header = "seriesuid,coordX,coordY,coordZ,"
    (folder / "annotations.csv").write_text("\n".join([header + "diameter_mm", *rows, "elsewhere,1,2,3,5"]))
    if candidates:
        x, y, z = GRID.to_patient((3, 15, 10))
        (folder / "candidates.csv").write_text(f"{header}class\na,{x},{y},{z},0\na,0,0,0,1\n")


def test_luna16(tmp_path: Path) -> None:
    luna16(tmp_path / "data")
    cohort = prepared(tmp_path)
    scans = {scan.shard.scan: scan.shard for scan in cohort.scans}
    assert sorted(scans) == ["a", "b", "c", "d"]
    assert [len(scans[name].nodules) for name in "abcd"] == [2, 2, 2, 0], "a scan without a row has no nodules"
    assert scans["a"].nodules[0].diameter_mm == pytest.approx(9.5, abs=1)
    points = ShardReader(open_store(str(tmp_path / "shards"))).points(scans["a"])
    told = points[points[:, 0] == LOOKALIKE, 1:]
    assert scans["a"].grid.to_patient(told) == pytest.approx(GRID.to_patient([(3, 15, 10)]), abs=1.0)
    assert reasons(cohort) == {"elsewhere": "is in annotations.csv, but no scan of this id is here"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("seriesuid,coordX,coordY,coordZ\na,1,2,3", "has no column diameter_mm"),
        ("seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,2,three,4", "line 2: a value is missing or no number"),
        ("seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,2,3", "line 2: a value is missing or no number"),
        (None, "has .mhd scans but no annotations.csv"),
    ],
)
def test_broken_tables_of_luna16(table: str | None, sentence: str, tmp_path: Path) -> None:
    luna16(tmp_path / "data")
    (tmp_path / "data/annotations.csv").unlink()
    if table:
        (tmp_path / "data/annotations.csv").write_text(table)
    with pytest.raises(RefusedInputError) as caught:
        prepared(tmp_path)
    assert sentence in str(caught.value)


def test_luna16_with_files_missing(tmp_path: Path) -> None:
    luna16(tmp_path / "data")
    (tmp_path / "data/subset0/d.raw").unlink()
    assert reasons(prepared(tmp_path))["d"] == "lacks its data file d.raw; copy it beside the header"


def test_phantoms_are_the_same_for_the_same_seed_and_read_back(tmp_path: Path) -> None:
    stores = [open_store(str(tmp_path / name)) for name in ("one", "two")]
    phantoms = plan_phantoms(6, seed=3)
    for store in stores:
        for phantom in phantoms[4:]:
            write_phantom(PhantomTask(phantom, store))
        write_table(store, phantoms[4:])
    files = [{file.key: store.read(file.key) for file in store.files(deep=True)} for store in stores]
    assert files[0] == files[1]
    assert sum(key.endswith(".nii.gz") for key in files[0]) == 2
    found = find_sources(stores[0], InThisProcess())
    assert found.skipped == ()
    assert {source.patient: source.form for source in found.sources} == {"phantom-004": "dicom", "phantom-005": "nifti"}
    notes = [prepare_scan(ScanTask(source, stores[0], stores[0], SETTINGS)) for source in found.sources]
    assert [len(note.nodules) for note in notes] == [1, 2]  # type: ignore[union-attr]


def test_the_index_is_json_without_surprises(data: Path, tmp_path: Path) -> None:
    prepared(tmp_path)
    (index,) = (tmp_path / "shards").glob("index-*.json")
    assert sorted(json.loads(index.read_text())) == ["digest", "scans", "settings", "skipped"]
