"""ISIC tables and ECVL's dataset YAML: what is read, what is skipped and named, what is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.skin.listing import list_pictures
from dhctl.ray_jobs.skin.pictures import Listing
from dhctl.ray_jobs.storage import open_store
from jobs.sample_pictures import CLASSES, dataset, quick_settings, write_csv, write_ecvl, write_isic, write_picture


def listed(folder: Path, **changes: object) -> Listing:
    return list_pictures(open_store(str(folder)), quick_settings(**changes))


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(RefusedInputError) as refused:
        listed(folder, **changes)
    return str(refused.value)


def test_isics_layout_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_isic(tmp_path)
    found = listed(tmp_path)
    assert found.classes == CLASSES
    assert len(found.pictures) == 24
    last = found.pictures[-1]
    assert (last.name, last.label, last.lesion, last.part) == ("ISIC_00171", 2, "L17", None)
    assert last.file.key == "ISIC_Input/ISIC_00171.jpg"
    assert (found.skipped, capsys.readouterr().out) == ((), "")


def test_a_table_with_names_of_classes_is_read(tmp_path: Path) -> None:
    rows = [
        ["lesion_id", "image_id", "dx", "age"],
        ["H1", "a", "nv", 40],
        ["H1", "b", "nv", 40],
        ["H2", "c", "mel", 70],
    ]
    write_csv(tmp_path / "HAM10000_metadata.csv", rows)
    for name in "abc":
        write_picture(tmp_path / f"part_1/{name}.jpg")
    found = listed(tmp_path)
    assert found.classes == ("mel", "nv")
    assert [(p.name, p.label, p.lesion) for p in found.pictures] == [("a", 1, "H1"), ("b", 1, "H1"), ("c", 0, "H2")]


def test_pictures_without_lesion_are_lesions_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_isic(tmp_path)
    (tmp_path / "ISIC_Metadata.csv").unlink()
    found = listed(tmp_path)
    assert len({picture.lesion for picture in found.pictures}) == 24
    assert "24 pictures have no lesion_id" in capsys.readouterr().out


def test_unknown_ids_and_pictures_without_row_are_named(tmp_path: Path) -> None:
    write_isic(tmp_path)
    (tmp_path / "ISIC_Input/ISIC_00000.jpg").rename(tmp_path / "ISIC_Input/other.jpg")
    found = listed(tmp_path)
    assert [(row.image, row.reason) for row in found.skipped] == [
        ("ISIC_00000", "no file ISIC_00000 is in the data folder"),
        ("other", "has no row in the table"),
    ]
    assert len(found.pictures) == 23


def test_an_empty_class_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_picture(tmp_path / f"{name}.jpg")
    write_csv(tmp_path / "t.csv", [["image", "MEL", "UNK", "NV"], ["a", 1, 0, 0], ["b", 0.0, 0.0, 1.0]])
    write_csv(tmp_path / "l.csv", [["image", "lesion_id"], ["a", "1"], ["b", "2"]])
    found = listed(tmp_path)
    assert found.classes == ("MEL", "NV")
    assert [picture.label for picture in found.pictures] == [0, 1]
    assert "no picture is of class UNK" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([["image", "MEL", "NV"], ["a", 1, 1]], "line 2: the classes with a 1 are MEL, NV; it must be one"),
        ([["image", "MEL", "NV"], ["a", 0, 0]], "line 2: the classes with a 1 are none"),
        ([["image", "MEL", "NV"], ["a", 0, 1], ["b", 0.5, 1]], "line 3: MEL is '0.5'; it must be 0 or 1"),
        ([["image", "label"], ["a", "NV"], ["a", "NV"]], "line 3: picture a is there twice"),
        ([["image", "label"], ["", "NV"]], "line 2: the column image is empty"),
        ([["image", "label"]], "has no line below its header"),
        ([["picture", "kind"], ["a", "NV"]], "has the columns picture, kind; it needs image and either"),
        ([["image", "label"], ["a", "NV"], ["b", "NV"]], "all pictures are of class NV (none of another)"),
        ([["image", "label"], ["x", "NV"], ["y", "MEL"]], "is usable: a has no row in the table"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, rows: list[list[object]], sentence: str) -> None:
    write_csv(tmp_path / "t.csv", rows)
    for name in "ab":
        write_picture(tmp_path / f"{name}.jpg")
    assert sentence in refusal(tmp_path)


def test_a_label_outside_the_given_classes_is_refused(tmp_path: Path) -> None:
    write_isic(tmp_path)
    said = refusal(tmp_path, classes=["MEL", "NV"])
    assert "line 10: the label is 'BCC', which is none of the classes MEL, NV" in said


def test_no_description_and_too_many_are_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    assert "has no table of labels (0 other CSV files) and no dataset YAML" in refusal(tmp_path)
    write_isic(tmp_path)
    write_csv(tmp_path / "second.csv", [["image", "label"], ["a", "NV"]])
    assert "has 2 descriptions" in refusal(tmp_path)
    assert len(listed(tmp_path, table="ISIC_GroundTruth.csv").pictures) == 24
    assert "job.params.table is 'third.csv', which is not in" in refusal(tmp_path, table="third.csv")


def test_two_files_of_one_picture_are_refused(tmp_path: Path) -> None:
    write_isic(tmp_path)
    write_picture(tmp_path / "copy/ISIC_00000.png")
    assert "two files are the picture of one row: ISIC_Input/ISIC_00000.jpg, copy/" in refusal(tmp_path)


def test_ecvls_dataset_is_read(tmp_path: Path) -> None:
    write_ecvl(tmp_path, dataset())
    found = listed(tmp_path)
    assert found.classes == CLASSES
    first, last = found.pictures[0], found.pictures[-1]
    assert (first.file.key, first.label, first.lesion, first.part) == ("set/pictures/p00.jpg", 0, "L0", "train")
    assert (last.lesion, last.part) == ("L11", "test")


def test_what_ecvl_allows_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = dataset()
    tree["images"][0]["label"] = 2
    tree["images"][1]["label"] = ["BCC"]
    tree["images"][2]["values"] = {"lesion_id": "L2"}
    tree["images"][3]["location"] = str(tmp_path / "set/pictures/p03.jpg")
    tree["images"].append("pictures/p00.jpg")
    tree["split"]["holdout"] = [12]
    write_ecvl(tmp_path, tree)
    found = listed(tmp_path)
    assert [picture.label for picture in found.pictures[:3]] == [2, 2, 2]
    assert (found.pictures[2].lesion, found.pictures[3].file.key) == ("L2", "set/pictures/p03.jpg")
    said = capsys.readouterr().out
    assert "the part 'holdout' of its split is none of training" in said
    assert "1 pictures are in no part of its split" in said


def test_without_a_split_in_the_dataset_the_job_splits(tmp_path: Path) -> None:
    tree = dataset()
    del tree["split"]
    write_ecvl(tmp_path, tree)
    assert {picture.part for picture in listed(tmp_path).pictures} == {None}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("name: set\nimages: [\n", "is broken YAML"),
        ("- images: []\n\nimages: []\n", "is broken YAML"),
        ({"images": []}, "has no list `images`"),
        ({"classes": []}, "has no classes"),
        ({"classes": "MEL"}, "classes is a str; write a list"),
        ({"split": [1, 2]}, "split is a list; write training, validation and test"),
        ({"split": {"training": [0, 99], "test": [1]}}, "split.training names image 99; there are 0 to 11"),
        ({"split": {"training": [0, 1], "test": [1]}}, "image 1 is in two parts of the split"),
        ({"split": {"training": [0, 1]}}, "split.test is empty"),
    ],
)
def test_broken_datasets_are_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    write_ecvl(tmp_path, change if isinstance(change, str) else dataset(**change))
    assert sentence in refusal(tmp_path)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ({"label": "DF"}, "images[0]: the label is 'DF', which is none of the classes MEL, NV, BCC"),
        ({"label": 3}, "images[0]: the label is 3; the classes are 0 to 2"),
        ({"label": ["MEL", "NV"]}, "images[0] has 2 labels; this job takes one"),
        ({"label": None}, "images[0] has no label"),
        ({"location": ["a.jpg", "b.jpg"]}, "images[0]: location is ['a.jpg', 'b.jpg']; this job takes one file"),
        ({"location": "https://isic.example/a.jpg"}, "is elsewhere; fetch it"),
        ({"location": "../../a.jpg"}, "which is all that workers read; move it"),
        ({"values": [1, "L0", 2]}, "images[0] has 3 values for 2 features"),
    ],
)
def test_images_of_a_dataset_that_cannot_be_used_are_refused(
    tmp_path: Path, image: dict[str, object], sentence: str
) -> None:
    tree = dataset()
    tree["images"][0].update(image)
    write_ecvl(tmp_path, tree)
    assert sentence in refusal(tmp_path)


def test_pictures_of_one_name_are_kept_apart_and_one_listed_twice_is_refused(tmp_path: Path) -> None:
    tree = dataset()
    tree["images"][5]["location"] = "more/p00.jpg"
    write_ecvl(tmp_path, tree)
    write_picture(tmp_path / "set/more/p00.jpg")
    names = {picture.file.key: picture.name for picture in listed(tmp_path).pictures}
    assert names["set/more/p00.jpg"] == "set/more/p00.jpg"
    assert names["set/pictures/p00.jpg"] == "set/pictures/p00.jpg"
    assert names["set/pictures/p01.jpg"] == "p01"
    tree["images"][5]["location"] = "pictures/../pictures/p00.jpg"
    write_ecvl(tmp_path, tree)
    assert "set/pictures/p00.jpg is there 2 times; leave one" in refusal(tmp_path)


def test_a_missing_picture_of_a_dataset_is_named(tmp_path: Path) -> None:
    tree = dataset()
    tree["images"][4]["location"] = "pictures/gone.jpg"
    write_ecvl(tmp_path, tree)
    assert [(row.image, row.reason) for row in listed(tmp_path).skipped] == [
        ("gone", "no file set/pictures/gone.jpg is in the data folder")
    ]
