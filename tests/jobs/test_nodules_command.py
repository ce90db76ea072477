"""The job as a user starts it, in this process and without Ray, to the masks that it writes back."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dhctl.ray_jobs import report
from dhctl.ray_jobs.nodules import prediction
from dhctl.ray_jobs.nodules.dicom_seg import read_seg, referenced_series
from dhctl.ray_jobs.nodules.dicom_series import read_series
from dhctl.ray_jobs.nodules.nifti import read_nifti, read_nifti_mask
from dhctl.ray_jobs.nodules.phantom_files import nifti
from dhctl.ray_jobs.nodules.recipe import RECIPE
from dhctl.ray_jobs.nodules.settings import settings_from
from dhctl.ray_jobs.nodules.volume import Volume
from dhctl.ray_jobs.pipeline.command import run
from jobs.sample_scans import GRID, chest, labels, slices, write_patient, write_series

SMALL = {
    "epochs": 2,
    "draws_per_epoch": 4,
    "patch": [16, 16, 16],
    "filters": [8, 16, 16],
    "validation_share": 0.2,
    "test_share": 0.2,
    "mask_probability": 0.3,
}


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nodules", *arguments])
        return run(RECIPE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, and the environment of a job in it."""
    folder = tmp_path_factory.mktemp("nodules")
    for index in range(6):
        write_patient(folder / "data", index)
    (folder / "data/broken.dcm").write_bytes(b"not DICOM")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "DHCTL_RUN_ID", "DHCTL_WORKERS", "DHCTL_WORKERS_MIN"):
            patch.delenv(name, raising=False)
        patch.setenv("DHCTL_DATA", str(folder / "data"))
        patch.setenv("DHCTL_OUTPUT", str(folder / "out"))
        patch.setenv("DHCTL_JOB_PARAMS", json.dumps(SMALL))
        yield folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The same, after a training."""
    assert call("all", "--without-ray") == 0
    return place


def test_the_whole_job(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((trained / "out/result.json").read_text())
    assert found["job"] == "nodules"
    assert found["metric"]["name"] == "cpm"
    assert found["metric"]["baseline"]["name"] == "threshold, blobs by size"
    low, high = found["metric"]["ci95"]
    assert 0 <= low <= found["metric"]["value"] <= high <= 1
    assert list(found["sensitivity_at_false_positives_per_scan"]) == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    assert found["scans"] == {"train": 4, "validation": 1, "test": 1}
    assert found["skipped"][0]["scan"] == "broken.dcm"
    assert len(found["validation_cpm"]) == 2
    assert found["versions"]["highdicom"] != "not installed"
    rows = list(csv.DictReader((trained / "out/findings.csv").read_text().splitlines()))
    assert {row["series"] for row in rows} <= {str(slices(index)[0].SeriesInstanceUID) for index in range(6)}

    assert call("all", "--without-ray") == 0
    again = [message for message in map(report.parse, capsys.readouterr().out.splitlines()) if message]
    assert report.Result(found) in again
    assert not any(isinstance(m, report.Progress) and m.stage in ("train", "evaluate") for m in again)


def test_phantoms_say_so_in_the_result() -> None:
    assert "phantoms" in RECIPE.what_phantoms_are


def new_patients(folder: Path) -> list[str]:
    """Two good series, one with a gap, one of metal, and a NIfTI scan, none with a mask."""
    held = [slices(20), slices(21)]
    for index, one in enumerate(held):
        write_series(folder / f"new-{index}", one)
    write_series(folder / "gap", slices(22)[:3] + slices(22)[5:])
    (folder / "scan.nii.gz").write_bytes(nifti(chest().hu, GRID))
    return [str(one[0].SeriesInstanceUID) for one in held]


def test_predict_writes_masks_back_and_goes_on(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = new_patients(tmp_path / "new")
    arguments = ("predict", "--without-ray", "--data", str(tmp_path / "new"), "--output", str(tmp_path / "out"))
    arguments = (*arguments, "--param", f"model_from={trained / 'out'}")
    assert call(*arguments) == 0
    summary = result_of(capsys)
    assert (summary["scans"], summary["by_an_earlier_run"]) == (3, 0)
    (failed,) = summary["failed"]
    assert failed["reason"].startswith("lacks 2 slices")

    folder = tmp_path / "out/predictions"
    words = settings_from({}).nodule_words
    for uid, name in zip(good, ("new-0", "new-1"), strict=True):
        series = read_series(sorted((tmp_path / "new" / name).iterdir()))
        told = json.loads((folder / f"{uid}.json").read_text())["nodules"]
        mask = read_seg(folder / f"{uid}.dcm", series, words)
        seg = pydicom.dcmread(folder / f"{uid}.dcm")
        assert referenced_series(seg) == (uid,)
        assert seg.FrameOfReferenceUID == series.slices[0].FrameOfReferenceUID
        assert len(seg.SegmentSequence) == max(1, len(told))
        # The mask is what the model outlines on this series, voxel for voxel.
        model = prediction._model(str(trained / "out"))
        settings = model.settings.model_copy(update={"mask_probability": SMALL["mask_probability"]})
        wanted, nodules = prediction.outlined(model.net, series.volume, settings, prediction.torch.device("cpu"))
        assert np.array_equal(mask, wanted > 0)
        assert len(nodules) == len(told)
    volume = read_nifti(tmp_path / "new/scan.nii.gz")
    assert read_nifti_mask(folder / "scan.nii.gz", volume.grid).shape == volume.hu.shape

    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert call(*arguments) == 0
    assert result_of(capsys)["by_an_earlier_run"] == 3
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert call(*arguments, "--param", "mask_probability=0.9") == 0
    assert result_of(capsys)["by_an_earlier_run"] == 0, "another threshold is another mask"


def test_predict_needs_a_model_and_a_scan(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("predict", "--without-ray", "--output", str(tmp_path / "none")) == 1
    assert "has no model.pt; set job.params.model_from" in capsys.readouterr().err
    write_series(tmp_path / "gap", slices(22)[:3] + slices(22)[5:])
    assert call("predict", "--without-ray", "--data", str(tmp_path)) == 1
    assert "could be looked at" in capsys.readouterr().err


def test_nodules_are_outlined_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that knows: the way there and back over another spacing keeps place, size and order."""
    volume = chest()

    def knows(_model: object, cut: Volume, *_: object) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, cut.grid.shape), indexing="ij"), axis=-1)
        there = np.rint(GRID.to_index(cut.grid.to_patient(index))).astype(int)
        inside = ((there >= 0) & (there < GRID.shape)).all(axis=-1)
        number = np.where(inside, labels()[tuple(there.clip(0, np.asarray(GRID.shape) - 1).transpose(3, 0, 1, 2))], 0)
        return np.choose(number, [0.0, 0.7, 0.9]).astype(np.float32)

    monkeypatch.setattr(prediction, "probabilities", knows)
    found, nodules = prediction.outlined(
        prediction.torch.nn.Identity(), volume, settings_from({}), prediction.torch.device("cpu")
    )
    assert [round(nodule.score, 1) for nodule in nodules] == [0.9, 0.7]
    for number, truth in ((1, 2), (2, 1)):
        both = ((found == number) & (labels() == truth)).sum()
        assert 2 * both / ((found == number).sum() + (labels() == truth).sum()) > 0.75


def result_of(capsys: pytest.CaptureFixture[str]) -> dict:
    (found,) = (
        message.result
        for message in map(report.parse, capsys.readouterr().out.splitlines())
        if isinstance(message, report.Result)
    )
    return dict(found)
