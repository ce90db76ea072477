"""Inference over a folder of slides: maps and a table, done slides skipped, a bad slide named."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import openslide
import pytest

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import JobEnvironment
from dhctl.ray_jobs.pipeline.command import run
from dhctl.ray_jobs.pipeline.job import Job
from dhctl.ray_jobs.pipeline.spread import RayTasks
from dhctl.ray_jobs.prostate import prediction
from dhctl.ray_jobs.prostate.prediction import find_slides
from dhctl.ray_jobs.prostate.recipe import RECIPE
from dhctl.ray_jobs.storage import open_store
from jobs.sample_slides import quick_settings, tissue_picture, write_cohort, write_slide

SMALL = {"epochs": 1, "draws_per_epoch": 1, "tile_px": 32, "bag_tiles": 4, "validation_share": 0.2, "test_share": 0.2}


class KilledError(BaseException):
    """The process ends here."""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prostate", *arguments])
    return run(RECIPE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that trained a model."""
    folder = tmp_path_factory.mktemp("trained")
    write_cohort(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHCTL_JOB_PARAMS", json.dumps(SMALL))
        for stage in ("prepare", "train"):
            words = (stage, "--without-ray", "--data", str(folder / "data"), "--output", str(folder / "out"))
            assert call(patch, *words) == 0
    return folder / "out"


def predicted(monkeypatch: pytest.MonkeyPatch, folder: Path, trained: Path) -> int:
    words = ("--without-ray", "--data", str(folder / "slides"), "--output", str(folder / "out"))
    return call(monkeypatch, "predict", *words, "--param", f"model_from={trained}")


def results(text: str) -> list[dict[str, object]]:
    messages = map(report.parse, text.splitlines())
    return [dict(message.result) for message in messages if isinstance(message, report.Result)]


def test_every_slide_gets_maps_and_a_grade_and_a_bad_one_is_named(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "ward/b"):
        write_slide(tmp_path / f"slides/{name}.tiff", tissue_picture(), 1.0)
    (tmp_path / "slides/broken.svs").write_bytes(b"not a slide")
    assert predicted(monkeypatch, tmp_path, trained) == 0
    said = capsys.readouterr().out
    assert "slide broken is left out: OpenSlide cannot read it" in said
    (found,) = results(said)
    assert (found["slides"], found["by_an_earlier_run"]) == (2, 0)
    assert [row["slide"] for row in found["failed"]] == ["broken"]  # type: ignore[attr-defined]
    with (tmp_path / "out/predictions/grades.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide"] for row in rows] == ["a", "ward/b"]
    assert all(0 <= int(row["isup_grade"]) <= 5 and int(row["tiles"]) == 64 for row in rows)
    for name in ("a", "ward/b"):
        for kind in ("tissue", "attention", "tumour"):
            openslide.OpenSlide(tmp_path / f"out/predictions/{name}.{kind}.tiff").close()


def test_done_slides_are_skipped_and_changed_ones_are_not(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        write_slide(tmp_path / f"slides/{name}.tiff", tissue_picture(), 1.0)
    looked: list[str] = []
    really = prediction.look_at

    def counted(slide: object, *others: object) -> object:
        looked.append("slide")
        if len(looked) == 3:
            raise KilledError  # in the midst of the third slide
        return really(slide, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction, "look_at", counted)
    with pytest.raises(KilledError):
        predicted(monkeypatch, tmp_path, trained)
    monkeypatch.setattr(prediction, "look_at", really)
    capsys.readouterr()
    assert predicted(monkeypatch, tmp_path, trained) == 0
    (found,) = results(capsys.readouterr().out)
    assert (found["slides"], found["by_an_earlier_run"]) == (3, 2)
    write_slide(tmp_path / "slides/a.tiff", tissue_picture(640, 640), 1.0)
    assert predicted(monkeypatch, tmp_path, trained) == 0
    assert results(capsys.readouterr().out)[0]["by_an_earlier_run"] == 2


def test_no_slide_and_no_usable_slide_and_no_model_are_refused(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predicted(monkeypatch, tmp_path, tmp_path / "nothing") == 1
    assert "has no model.pt; set job.params.model_from" in capsys.readouterr().err
    assert predicted(monkeypatch, tmp_path, trained) == 1
    assert "has no slide (.tiff" in capsys.readouterr().err
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/broken.svs").write_bytes(b"not a slide")
    assert predicted(monkeypatch, tmp_path, trained) == 1
    assert "could be looked at: broken OpenSlide cannot read it" in capsys.readouterr().err


def test_slides_of_several_files_are_whole_and_maps_are_no_slides(tmp_path: Path) -> None:
    several = ("m.mrxs", "m/Slidedat.ini", "m/Data0.dat", "d/1.dcm", "d/2.dcm")
    for name in (*several, "x.svs", "x.tiff", "x.tumour.tiff", "t.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = {slide.slide: slide.keys for slide in find_slides(open_store(str(tmp_path)))}
    assert found == {
        "d": ["d/1.dcm", "d/2.dcm"],
        "m": ["m.mrxs", "m/Data0.dat", "m/Slidedat.ini"],
        "x": ["x.svs"],
        "x.tiff": ["x.tiff"],
    }


def test_a_slide_gets_a_gpu_and_its_share_of_cores_where_workers_have_them(tmp_path: Path) -> None:
    def spread(gpus: int) -> RayTasks:
        env = JobEnvironment(str(tmp_path), str(tmp_path), workers=3, worker_cpus=8, worker_gpus=gpus)
        found = Job(env, quick_settings(), open_store(str(tmp_path)), with_ray=True).model_spread
        assert isinstance(found, RayTasks)
        return found

    assert spread(gpus=2) == RayTasks(24, cpus_each=4, gpus_each=1)
    assert spread(gpus=0) == RayTasks(24)
