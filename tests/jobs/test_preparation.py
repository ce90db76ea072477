"""Slides to shards: what is reused, what is skipped, what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.pipeline.tars import pack, unpack
from dhctl.ray_jobs.prostate import preparation
from dhctl.ray_jobs.prostate.preparation import prepare, read_cohort
from dhctl.ray_jobs.storage import open_store
from jobs.sample_slides import quick_settings, tissue_picture, write_cohort, write_slide

HERE = InThisProcess()


def test_a_corrupt_slide_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path / "data")
    (tmp_path / "data/train_images/slide-3.tiff").write_bytes(b"not a slide")
    (tmp_path / "data/train_images/slide-5.tiff").unlink()
    shards = open_store(str(tmp_path / "shards"))
    cohort = prepare(open_store(str(tmp_path / "data")), shards, quick_settings(), HERE)
    assert len(cohort.bags) == 10
    assert [(row.slide, row.reason.split(":")[0]) for row in cohort.skipped] == [
        ("slide-3", "OpenSlide cannot read it"),
        ("slide-5", "no file of this name is in the data folder"),
    ]
    assert "slide slide-3 is skipped" in capsys.readouterr().out
    assert read_cohort(shards, quick_settings()) == cohort


def test_shards_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(tmp_path / "data")
    data, shards = open_store(str(tmp_path / "data")), open_store(str(tmp_path / "shards"))
    first = prepare(data, shards, quick_settings(), HERE)
    cut: list[str] = []

    def counted(task: preparation.SlideTask) -> object:
        cut.append(task.located.case.slide)
        return preparation_slide(task)

    preparation_slide = preparation.prepare_slide
    monkeypatch.setattr(preparation, "prepare_slide", counted)
    assert prepare(data, shards, quick_settings(), HERE).digest == first.digest
    assert cut == []
    (tmp_path / "shards" / next(iter((tmp_path / "shards").glob("index-*"))).name).unlink()
    prepare(data, shards, quick_settings(), HERE)
    assert cut == [], "notes beside the shards do as well as the index"
    write_slide(tmp_path / "data/train_images/slide-2.tiff", tissue_picture(320, 320), 1.0)
    assert prepare(data, shards, quick_settings(), HERE).digest != first.digest
    assert cut == ["slide-2"]
    prepare(data, shards, quick_settings(tile_px=48), HERE)
    assert len(cut) == 1 + 12


def test_a_slide_without_resolution_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path / "data")
    write_slide(tmp_path / "data/train_images/slide-2.tiff", tissue_picture(), None)
    prepare(open_store(str(tmp_path / "data")), open_store(str(tmp_path / "shards")), quick_settings(), HERE)
    assert "1 slides, such as slide-2: each has no resolution; 0.5 um/px is assumed" in capsys.readouterr().out


def test_no_readable_slide_is_refused(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data")
    for path in (tmp_path / "data/train_images").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(RefusedInputError, match=r"no readable slide is left in .*: slide-0 OpenSlide cannot read it"):
        prepare(open_store(str(tmp_path / "data")), open_store(str(tmp_path / "shards")), quick_settings(), HERE)


def test_a_part_that_lost_all_its_slides_is_refused(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data")
    data, shards = open_store(str(tmp_path / "data")), open_store(str(tmp_path / "shards"))
    for bag in prepare(data, shards, quick_settings(), HERE).part("test"):
        (tmp_path / f"data/train_images/{bag.shard.slide}.tiff").unlink()
    with pytest.raises(RefusedInputError, match="the test part of the split is empty"):
        prepare(data, shards, quick_settings(), HERE)


def test_training_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInputError, match="run the stage prepare first"):
        read_cohort(open_store(str(tmp_path)), quick_settings())


@pytest.mark.parametrize(("tile_format", "tolerance"), [("npy", 0), ("jpg", 12)])
def test_shards_are_webdataset_tars(tile_format: str, tolerance: int) -> None:
    tiles = np.stack([tissue_picture(64, 64), tissue_picture(64, 64)[::-1]])
    tar = pack(tiles, tile_format)
    assert tar == pack(tiles, tile_format)
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        names = opened.getnames()
    assert names == [f"00000.{tile_format}", f"00001.{tile_format}"]
    second = unpack(tar, np.array([1]))
    assert second.shape == (1, 64, 64, 3)
    assert np.abs(second[0].astype(int) - tiles[1]).mean() <= tolerance
