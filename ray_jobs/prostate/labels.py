"""The table of slides, patients and grades that lies beside the slides."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.settings import GRADES
from dhctl.ray_jobs.prostate.slides import SUFFIXES
from dhctl.ray_jobs.storage import Store

TABLES = ("train.csv", "labels.csv", "slides.csv")
"""Names under which the table is looked for; otherwise the only CSV of the folder is taken."""

SLIDE_FOLDERS = ("", "train_images")
"""Where slides are looked for, beneath the data folder."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    slide: str
    """Name of the slide, without file ending."""
    patient: str
    grade: int
    """ISUP grade, 0 to 5."""


@dataclass(frozen=True)
class LocatedCase:
    """A case and the file that holds its slide, or None where there is no such file."""

    case: Case
    key: str | None
    """Key of the slide file in the data store."""
    files: tuple[tuple[str, int, str], ...] = ()
    """Key, size in bytes and time of change of all files of the slide (a MIRAX slide has a folder of them)."""


def read_cases(data: Store) -> list[Case]:
    """The table of a data folder. Raises RefusedInputError where there is none or it cannot be used."""
    tables = [file.key for file in data.files() if file.key.lower().endswith(".csv")]
    named = [name for name in TABLES if name in tables] or (tables if len(tables) == 1 else [])
    if not named:
        found = f"{len(tables)} other CSV files" if tables else "no CSV file"
        raise RefusedInputError(
            f"{data.url} has no train.csv ({found}); put one beside the slides, with the columns "
            "image_id, isup_grade and patient_id (PANDA) or slide, patient, isup_grade"
        )
    return parse_cases(data.read(named[0]).decode("utf-8-sig", errors="replace"), f"{data.url}/{named[0]}")


def parse_cases(text: str, source: str) -> list[Case]:
    """Cases of a CSV text: PANDA's columns (image_id, isup_grade, optionally patient_id) or slide, patient, isup_grade.

    PANDA's public table does not name patients: each slide is then taken as a patient of its own, with a warning.
    Raises RefusedInputError with the line of the first problem.
    """
    reader = csv.DictReader(io.StringIO(text))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    slide_column = columns.get("image_id", columns.get("slide"))
    patient_column = columns.get("patient_id", columns.get("patient"))
    grade_column = columns.get("isup_grade")
    if slide_column is None or grade_column is None:
        raise RefusedInputError(
            f"{source} has the columns {', '.join(columns) or 'none'}; it needs image_id (or slide) and isup_grade"
        )
    if patient_column is None:
        report.warning(
            f"{source} has no column patient_id: each slide is taken as a patient of its own, so slides of one patient "
            "may be on both sides of the split and the score may be too good"
        )
    cases: dict[str, Case] = {}
    for line, row in enumerate(reader, start=2):
        where = f"{source}, line {line}"
        slide = without_suffix(_cell(row, slide_column))
        patient = _cell(row, patient_column) if patient_column else slide
        if not slide or not patient:
            raise RefusedInputError(f"{where}: the slide or patient is empty; fill in or remove the line")
        if slide in cases:
            raise RefusedInputError(f"{where}: slide {slide} is there twice; remove one of the lines")
        cases[slide] = Case(slide, patient, _grade(_cell(row, grade_column), where))
    if not cases:
        raise RefusedInputError(f"{source} has no line below its header; add one line a slide")
    return list(cases.values())


def locate(data: Store, cases: list[Case]) -> list[LocatedCase]:
    """Find the file of each case in the data folder or its train_images folder."""
    slides: dict[str, str] = {}
    listed = {file.key: file for folder in SLIDE_FOLDERS for file in data.files(folder)}
    for path in sorted(listed):
        if path.lower().endswith(SUFFIXES):
            slides.setdefault(without_suffix(path.rsplit("/", 1)[-1]), path)
    located = []
    for case in cases:
        key = slides.get(case.slide)
        if key is None:
            located.append(LocatedCase(case, None))
            continue
        files = [listed[key]]
        if key.lower().endswith(".mrxs"):
            files += data.files(without_suffix(key), deep=True)
        located.append(LocatedCase(case, key, tuple((file.key, file.size_bytes, file.changed) for file in files)))
    return located


def _cell(row: Mapping[str, str | None], column: str) -> str:
    """The text of a cell; a short line has None in its last columns."""
    return (row[column] or "").strip()


def _grade(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value not in range(GRADES):
        raise RefusedInputError(f"{where}: isup_grade is '{text}'; it must be a whole number from 0 to {GRADES - 1}")
    return int(value)


def without_suffix(name: str) -> str:
    """The path of a slide without its file ending; another path as it is."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
