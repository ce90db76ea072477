"""The skin job as a user starts it, in this process and without Ray."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from dhctl.ray_jobs import report
from dhctl.ray_jobs.pipeline.command import run
from dhctl.ray_jobs.skin.recipe import RECIPE
from jobs.sample_pictures import CLASSES, write_isic

SMALL = {"epochs": 2, "draws_per_epoch": 1, "store_px": 36, "input_px": 32, "validation_share": 0.2, "test_share": 0.2}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "DHCTL_RUN_ID", "DHCTL_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DHCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DHCTL_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("DHCTL_JOB_PARAMS", json.dumps(SMALL))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["skin", *arguments])
    return run(RECIPE)


def test_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_isic(tmp_path / "data")
    (tmp_path / "data/ISIC_Input/ISIC_00010.jpg").write_bytes(b"no picture")
    assert call(monkeypatch, "all", "--without-ray") == 0
    said = capsys.readouterr().out
    messages = [message for message in map(report.parse, said.splitlines()) if message]
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert [m.result for m in messages if isinstance(m, report.Result)] == [found]
    assert found["metric"]["name"] == "balanced_accuracy"
    assert found["metric"]["baseline"]["name"].startswith("mean colour")
    assert set(found["scores"]) == {
        "macro_auc",
        "melanoma_sensitivity_at_specificity_0.9",
        "expected_calibration_error",
    }
    assert set(found["recall"]) == set(CLASSES)
    assert [row["image"] for row in found["skipped"]] == ["ISIC_00010"]
    assert sum(found["images"].values()) == sum(found["images_of_class"].values()) == 23
    assert len(found["validation_balanced_accuracy"]) == 2
    with (tmp_path / "out/predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == found["images"]["test"]
    assert all(sum(float(row[name]) for name in CLASSES) == pytest.approx(1, abs=1e-3) for row in rows)
    assert all(max(CLASSES, key=lambda name: float(row[name])) == row["predicted"] for row in rows)
    assert "baseline, most frequent class: 0.333" in said

    assert call(monkeypatch, "all", "--without-ray") == 0
    again = [message for message in map(report.parse, capsys.readouterr().out.splitlines()) if message]
    assert report.Result(found) in again
    assert not any(isinstance(m, report.Progress) and m.stage == "train" for m in again)


def test_phantoms_are_made_once_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--data", "phantoms", "--without-ray", "--param", "phantom_lesions=60", "--param", "epochs=1")
    assert call(monkeypatch, "all", *few) == 0
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert found["data"] == "generated phantoms, not patients"
    assert sum(found["lesions"].values()) == 60
    capsys.readouterr()
    assert call(monkeypatch, "phantoms", *few) == 0
    assert '"stage":"phantoms"' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["all", "--without-ray"], "has no table of labels"),
        (["train", "--without-ray"], "run the stage prepare first"),
        (["all", "--without-ray", "--param", "encodr=small"], "did you mean encoder?"),
        (["all", "--without-ray", "--param", "profile=big"], "use one of tiny, full"),
        (["all", "--without-ray", "--param", 'classes=["MEL"]'], "job.params.classes: "),
        (["all", "--without-ray", "--param", "stage=predict"], "the job skin has no stage predict"),
    ],
)
def test_refusals_are_sentences(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("skin: ")
    assert sentence in error
    assert "Traceback" not in error
