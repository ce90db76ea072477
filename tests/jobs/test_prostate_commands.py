"""The job as a user starts it, in this process and without Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dhctl.ray_jobs import report
from dhctl.ray_jobs.pipeline.command import run
from dhctl.ray_jobs.prostate.recipe import RECIPE
from jobs.sample_slides import write_cohort

SMALL = '{"epochs":2,"draws_per_epoch":1,"tile_px":32,"bag_tiles":4,"validation_share":0.2,"test_share":0.2}'


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "DHCTL_RUN_ID", "DHCTL_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DHCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DHCTL_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("DHCTL_JOB_PARAMS", SMALL)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prostate", *arguments])
    return run(RECIPE)


def test_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path / "data")
    (tmp_path / "data/train_images/slide-3.tiff").write_bytes(b"not a slide")
    assert call(monkeypatch, "all", "--without-ray") == 0
    first = capsys.readouterr().out
    messages = [message for message in map(report.parse, first.splitlines()) if message]
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert [m.result for m in messages if isinstance(m, report.Result)] == [found]
    assert found["metric"]["name"] == "quadratic_weighted_kappa"
    assert found["metric"]["baseline"]["name"].startswith("mean colour")
    assert [row["slide"] for row in found["skipped"]] == ["slide-3"]
    assert sum(found["slides"].values()) == 11
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 1 + found["slides"]["test"]
    assert "baseline, most frequent grade: 0.000" in first

    assert call(monkeypatch, "all", "--without-ray") == 0
    again = [message for message in map(report.parse, capsys.readouterr().out.splitlines()) if message]
    assert report.Result(found) in again
    assert not any(isinstance(m, report.Progress) and m.stage in ("train", "evaluate") for m in again)


def test_stages_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path / "data")
    assert call(monkeypatch, "train", "--without-ray") == 1
    assert "run the stage prepare first" in capsys.readouterr().err
    assert call(monkeypatch, "prepare", "--without-ray") == 0
    assert call(monkeypatch, "evaluate", "--without-ray") == 1
    assert "run the stage train first" in capsys.readouterr().err
    assert call(monkeypatch, "train", "--without-ray", "--param", "epochs=1") == 0
    assert call(monkeypatch, "evaluate", "--without-ray", "--param", "epochs=1") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "RAY_ADDRESS is not set; submit this job to a Ray cluster"),
        (["all", "--without-ray"], "has no train.csv"),
        (["all", "--without-ray", "--param", "sede=1"], "did you mean seed?"),
        (["all", "--param", "epochs"], "--param epochs has no value"),
        (["all", "--workers", "none"], "DHCTL_WORKERS is 'none'"),
    ],
)
def test_refusals_are_sentences(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("prostate: ")
    assert sentence in error
    assert "Traceback" not in error


def test_help_and_unknown_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "train", "--help") == 0
    assert "--without-ray" in capsys.readouterr().out
    assert call(monkeypatch, "train", "--nodes", "3") == 2
