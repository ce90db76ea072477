"""Which lesions are held out: never on both sides, and as the data says where it says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.skin.pictures import Picture
from dhctl.ray_jobs.skin.preparation import prepare
from dhctl.ray_jobs.skin.split import parts_of_lesions, refuse_unlearnable_classes
from dhctl.ray_jobs.storage import StoredFile, open_store
from jobs.sample_pictures import dataset, quick_settings, write_ecvl


def picture(number: int, lesion: str, label: int = 0, part: Part | None = None) -> Picture:
    return Picture(f"p{number}", label, lesion, StoredFile(f"p{number}.jpg", 1, "0"), part)


def test_all_pictures_of_a_lesion_are_in_one_part_and_classes_are_shared_out() -> None:
    pictures = [picture(n, f"L{n // 2}", label=n // 2 % 4) for n in range(200)]
    parts = parts_of_lesions(pictures, quick_settings())
    assert Counter(parts.values()) == {"train": 60, "validation": 20, "test": 20}
    assert Counter(p.label for p in pictures if parts[p.lesion] == "test") == {0: 10, 1: 10, 2: 10, 3: 10}
    assert parts == parts_of_lesions(pictures[::-1], quick_settings())
    assert parts != parts_of_lesions(pictures, quick_settings(seed=1))


def test_a_given_split_is_used_as_it_is(tmp_path: Path) -> None:
    write_ecvl(tmp_path, dataset())
    cohort = prepare(open_store(str(tmp_path)), open_store(str(tmp_path / "out")), quick_settings(), InThisProcess())
    assert [picture.image for picture in cohort.part("test")] == ["p09", "p10", "p11"]
    assert [picture.image for picture in cohort.part("validation")] == ["p06", "p07", "p08"]


def test_a_lesion_on_both_sides_is_refused(tmp_path: Path) -> None:
    tree = dataset()
    tree["images"][9]["values"] = [50, "L0"]
    write_ecvl(tmp_path, tree)
    with pytest.raises(RefusedInputError) as refused:
        prepare(open_store(str(tmp_path)), open_store(str(tmp_path / "out")), quick_settings(), InThisProcess())
    assert "lesion L0 is on both sides of the split (p00 in train, p09 in test); move all" in str(refused.value)


def test_a_split_without_validation_takes_it_from_training(capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [picture(n, f"L{n}", n % 2, "test" if n < 10 else "train") for n in range(60)]
    parts = parts_of_lesions(pictures, quick_settings())
    assert Counter(parts.values()) == {"train": 40, "validation": 10, "test": 10}
    assert all(parts[f"L{n}"] == "test" for n in range(10))
    assert "the data's split has no validation part" in capsys.readouterr().out


def test_a_class_that_cannot_be_learned_is_refused_and_one_that_is_not_tested_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RefusedInputError, match="class NV has pictures in test only, so it cannot be learned"):
        refuse_unlearnable_classes({"train": [0], "validation": [0], "test": [0, 1]}, ["MEL", "NV"])
    refuse_unlearnable_classes({"train": [0, 1], "validation": [0], "test": [0]}, ["MEL", "NV"])
    assert "no test picture is of class NV" in capsys.readouterr().out
