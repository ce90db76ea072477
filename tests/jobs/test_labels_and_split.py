"""The table of slides, and who is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.labels import Case, locate, parse_cases, read_cases
from dhctl.ray_jobs.prostate.split import split_by_patient
from dhctl.ray_jobs.storage import open_store

PANDA = "image_id,data_provider,isup_grade,gleason_score\n0005f7,karolinska,0,0+0\n000920,karolinska,5,4+5\n"


def test_pandas_table_is_read_and_says_that_patients_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_cases(PANDA, "train.csv") == [Case("0005f7", "0005f7", 0), Case("000920", "000920", 5)]
    assert "no column patient_id: each slide is taken as a patient of its own" in capsys.readouterr().out


def test_patients_and_general_columns_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_cases("slide,patient,isup_grade\na.svs,p1,3\n", "t.csv") == [Case("a", "p1", 3)]
    assert parse_cases("image_id,patient_id,isup_grade\na,p1,3\n", "t.csv") == [Case("a", "p1", 3)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has the columns none"),
        ("slide,grade\na,1\n", "it needs image_id"),
        ("slide,patient,isup_grade\n", "has no line below its header"),
        ("slide,patient,isup_grade\na,p,6\n", "line 2: isup_grade is '6'"),
        ("slide,patient,isup_grade\na,p,high\n", "isup_grade is 'high'"),
        ("slide,patient,isup_grade\na,p,1\na,p,1\n", "line 3: slide a is there twice"),
        ("slide,patient,isup_grade\na,,1\n", "line 2: the slide or patient is empty"),
    ],
)
def test_unusable_tables_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(RefusedInputError) as refused:
        parse_cases(text, "t.csv")
    assert sentence in str(refused.value)


def test_a_folder_without_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInputError, match=r"has no train.csv \(no CSV file\)"):
        read_cases(open_store(str(tmp_path)))


def test_a_mirax_slide_is_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "train_images" / "m").mkdir(parents=True)
    (tmp_path / "train_images" / "m.mrxs").write_bytes(b"x")
    for name in ("Slidedat.ini", "Data0000.dat"):
        (tmp_path / "train_images" / "m" / name).write_bytes(b"yy")
    found = locate(open_store(str(tmp_path)), [Case("m", "p", 1), Case("gone", "p", 1)])
    assert [key for key, _, _ in found[0].files] == [
        "train_images/m.mrxs",
        "train_images/m/Data0000.dat",
        "train_images/m/Slidedat.ini",
    ]
    assert found[1].key is None


def test_no_patient_is_on_both_sides_and_grades_are_shared_out() -> None:
    cases = [Case(f"s{n}", f"p{n // 2}", (n // 2) % 6) for n in range(240)]
    parts = split_by_patient(cases, 0.15, 0.25, seed=3)
    assert Counter(parts.values()) == {"train": 72, "test": 30, "validation": 18}
    tested = Counter(case.grade for case in cases if parts[case.patient] == "test")
    assert min(tested[grade] for grade in range(6)) >= 8
    assert parts == split_by_patient(cases[::-1], 0.15, 0.25, seed=3)
    assert parts != split_by_patient(cases, 0.15, 0.25, seed=4)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(RefusedInputError, match="the validation part of the split is empty with 2 patients"):
        split_by_patient([Case("a", "p", 1), Case("b", "q", 2)], 0.1, 0.4, seed=0)
