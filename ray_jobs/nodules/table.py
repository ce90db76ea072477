"""scans.csv: which scans are used, whose they are, and in which part of the split; needed only where files do not say.

Columns: series (SeriesInstanceUID or file name without ending), and patient or part (train, validation, test) or both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.sources import Found, Skipped, Source
from dhctl.ray_jobs.pipeline.split import PARTS, Part
from dhctl.ray_jobs.storage import Store

TABLE = "scans.csv"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    scan: str
    patient: str
    part: Part | None


def read_table(data: Store) -> list[Row] | None:
    """The rows of scans.csv, or None where there is no such file. Raises RefusedInputError."""
    if not data.exists(TABLE):
        return None
    where = f"{data.url}/{TABLE}"
    reader = csv.DictReader(io.StringIO(data.read(TABLE).decode("utf-8-sig", errors="replace")))
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if "series" not in names or not {"patient", "part"} & set(names):
        raise RefusedInputError(
            f"{where} has the columns {', '.join(names) or 'none'}; it needs series, and patient or part"
        )
    reader.fieldnames = names
    rows: dict[str, Row] = {}
    for line, cells in enumerate(reader, start=2):
        row = _row(cells, f"{where}, line {line}")
        if row.scan in rows:
            raise RefusedInputError(f"{where}, line {line}: series {row.scan} is there twice; remove one of the lines")
        rows[row.scan] = row
    if any(row.part for row in rows.values()) and not all(row.part for row in rows.values()):
        raise RefusedInputError(f"{where} gives a part for some series only; fill in the column, or leave it empty")
    return list(rows.values())


def applied(rows: list[Row] | None, found: Found) -> Found:
    """The scans that the table names, with its patients and parts; all where there is no table."""
    if rows is None:
        return found
    sources = {source.scan: source for source in found.sources}
    kept = tuple(_merged(sources[row.scan], row) for row in rows if row.scan in sources)
    told = {row.scan for row in found.skipped}
    unknown = [
        Skipped(row.scan, f"is in {TABLE}, but no scan of this id is here")
        for row in rows
        if row.scan not in sources | dict.fromkeys(told)
    ]
    return Found(kept, (*found.skipped, *unknown))


def refuse_divided_patients(sources: tuple[Source, ...]) -> None:
    """Raise RefusedInputError where a table puts scans of one patient in two parts: the score would be too good."""
    parts: dict[str, Source] = {}
    for source in sources:
        first = parts.setdefault(source.patient, source)
        if first.part != source.part:
            raise RefusedInputError(
                f"{TABLE} has the series {first.scan} in {first.part} and {source.scan} in {source.part}, but both are "
                "of one patient; put all series of a patient in one part"
            )


def _row(cells: Mapping[str, str | None], where: str) -> Row:
    scan, patient, part = ((cells.get(name) or "").strip() for name in ("series", "patient", "part"))
    if not scan:
        raise RefusedInputError(f"{where}: the series is empty; fill in or remove the line")
    if part and part not in PARTS:
        raise RefusedInputError(f"{where}: the part is '{part}'; use {', '.join(PARTS)}")
    return Row(scan, patient, part or None)


def _merged(source: Source, row: Row) -> Source:
    return replace(source, patient=row.patient or source.patient, part=row.part)
