"""Pictures to shards: what is reused, what is skipped and named, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.skin import preparation
from dhctl.ray_jobs.skin.pictures import Picture
from dhctl.ray_jobs.skin.preparation import Cohort, cut_square, prepare, read_cohort
from dhctl.ray_jobs.skin.shards import ShardReader, grouped
from dhctl.ray_jobs.storage import Store, StoredFile, open_store
from jobs.sample_pictures import quick_settings, write_isic, write_picture


def stores(folder: Path) -> tuple[Store, Store]:
    return open_store(str(folder / "data")), open_store(str(folder / "shards"))


def prepared(folder: Path, **changes: object) -> Cohort:
    return prepare(*stores(folder), quick_settings(**changes), InThisProcess())


def test_an_unreadable_jpeg_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_isic(tmp_path / "data")
    whole = (tmp_path / "data/ISIC_Input/ISIC_00030.jpg").read_bytes()
    (tmp_path / "data/ISIC_Input/ISIC_00030.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "data/ISIC_Input/ISIC_00040.jpg").write_bytes(b"no picture")
    cohort = prepared(tmp_path)
    assert len(cohort.pictures) == 22
    assert [row.image for row in cohort.skipped] == ["ISIC_00030", "ISIC_00040"]
    assert all(row.reason.startswith("cannot be decoded: ") for row in cohort.skipped)
    assert "picture ISIC_00030 is skipped: cannot be decoded" in capsys.readouterr().out
    assert read_cohort(stores(tmp_path)[1], quick_settings()) == cohort
    assert prepared(tmp_path).skipped == cohort.skipped, "also when the shards were there"


def test_a_file_that_cannot_be_read_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_isic(tmp_path / "data")

    def broken(store: Store, key: str) -> bytes:
        if key.endswith("ISIC_00000.jpg"):
            raise PermissionError("not for you")
        return whole(store, key)

    whole = Store.read
    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", broken)
        assert [(row.image, row.reason) for row in prepared(tmp_path).skipped] == [("ISIC_00000", "not for you")]
    assert prepared(tmp_path).skipped == ()


def test_shards_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_isic(tmp_path / "data")
    first = prepared(tmp_path)
    made: list[list[str]] = []

    def counted(task: preparation.ShardTask) -> object:
        made.append([picture.name for picture in task.pictures])
        return really(task)

    really = preparation.prepare_shard
    monkeypatch.setattr(preparation, "prepare_shard", counted)
    assert prepared(tmp_path).digest == first.digest
    assert made == []
    write_picture(tmp_path / "data/ISIC_Input/ISIC_00020.jpg", seed=99)
    assert prepared(tmp_path).digest != first.digest
    assert len(made) == 1
    assert "ISIC_00020" in made[0]
    assert len(made[0]) < 24
    prepared(tmp_path, store_px=48)
    assert sum(map(len, made[1:])) == 24


def test_a_picture_more_leaves_most_shards_as_they_are() -> None:
    pictures = [Picture(f"p{n}", 0, "l", StoredFile(f"p{n}.jpg", 1, "0"), None) for n in range(1000)]
    before, after = grouped(pictures[:-1], 64), grouped(pictures, 64)
    assert len(before) == len(after) == 16
    assert sum(group not in before for group in after) == 1
    assert all(20 < len(group) < 120 for group in after)


def test_squares_come_back_as_they_were_cut(tmp_path: Path) -> None:
    write_isic(tmp_path / "data")
    cohort, (data, shards) = prepared(tmp_path), stores(tmp_path)
    reader = ShardReader(shards)
    for picture in cohort.pictures:
        tile = reader.read(picture)
        assert (tile == cut_square(data.read(f"ISIC_Input/{picture.image}.jpg"), 36)).all()
        assert tile.mean(axis=(0, 1)) == pytest.approx(picture.mean_rgb, abs=0.01)


def test_a_square_is_the_middle_with_the_shorter_side_whole(tmp_path: Path) -> None:
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[:, 30:90] = (0, 0, 200)
    Image.fromarray(picture).save(tmp_path / "p.png")
    tile = cut_square((tmp_path / "p.png").read_bytes(), 30)
    assert tile.shape == (30, 30, 3)
    assert (tile[:, 2:-2] == (0, 0, 200)).all()


def test_no_readable_picture_and_no_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInputError, match="run the stage prepare first"):
        read_cohort(stores(tmp_path)[1], quick_settings())
    write_isic(tmp_path / "data")
    for path in (tmp_path / "data/ISIC_Input").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(RefusedInputError, match=r"no readable picture is left in .*: ISIC_\d+ cannot be decoded"):
        prepared(tmp_path)


def test_a_part_that_lost_all_its_pictures_is_refused(tmp_path: Path) -> None:
    write_isic(tmp_path / "data")
    for picture in prepared(tmp_path).part("test"):
        (tmp_path / f"data/ISIC_Input/{picture.image}.jpg").write_bytes(b"no")
    with pytest.raises(RefusedInputError, match="the test part of the split is empty"):
        prepared(tmp_path)
