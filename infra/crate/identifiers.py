"""Names of patients, slides and images that a run's tables hold, so that a crate can be searched for them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dhctl.infra.object_store import Place
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import PHANTOMS

TABLE_LIMIT_BYTES = 64 * 2**20
TABLES = 50
"""Tables of one place that are read at most."""

_PERSON = r"patient|subject|person|mrn"
_COLUMN = re.compile(
    rf"(?:{_PERSON}|case|slide|image|lesion|series|study|scan|isic|dicom)[ _-]?(?:id|uid|name|no|number)?"
    r"|(?:series|study|sop)[ _]?(?:instance)?[ _]?uid",
    re.IGNORECASE,
)
"""Columns of a table, and keys of an index, whose values name somebody or something of somebody."""

_TABLE_NAME = re.compile(r".*\.csv|(?:.*/)?index-[0-9a-f]+\.json", re.IGNORECASE)


@dataclass(frozen=True)
class Identifiers:
    """`known`: identifier -> table and column that have it. `unsearchable`: how many are too short to be told apart."""

    known: Mapping[str, str]
    unsearchable: int


def identifiers_of(record: RunRecord) -> Identifiers:
    """From the tables of the data and of the output, and from what jobs said they skipped.

    Raises ObjectStoreError, OSError when a place cannot be read: a crate that was not searched is not written.
    """
    known: dict[str, str] = {}
    unsearchable: set[str] = set()
    for where, column, value in _values(record):
        text = value.strip()
        if _searchable(text, column):
            known.setdefault(text.casefold(), f"{where}, {column}")
        elif text:
            unsearchable.add(text)
    return Identifiers(known, len(unsearchable))


def _searchable(value: str, column: str) -> bool:
    """Whether finding it somewhere means something: `7` and `benign` are everywhere, `P0007` is not."""
    digits, letters = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    if digits and letters:
        return len(value) >= 4
    if digits:
        return len(value) >= 6
    return letters and len(value) >= 5 and re.match(_PERSON, column, re.IGNORECASE) is not None


def _values(record: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Table, column, value."""
    places = [record.output, *([record.spec.data] if record.spec.data not in (None, PHANTOMS) else [])]
    for place in places:
        for name, content in _tables(str(place)):
            text = content.decode("utf-8-sig", errors="replace")
            yield from _of_csv(name, text) if name.lower().endswith(".csv") else _of_json(name, _parsed(text))
    for number in range(1, record.last_job() + 1):
        path = record.job_dir(number) / "result.json"
        if path.exists():
            yield from _of_json(f"the result of job {number}", _parsed(path.read_text(encoding="utf-8")))


def _tables(place: str) -> Iterator[tuple[str, bytes]]:
    if place.startswith("s3://"):
        yield from _tables_of_bucket(Place.of(place))
        return
    folder = Path(place)
    if folder.is_dir():
        found = (p for p in sorted(folder.rglob("*")) if _TABLE_NAME.fullmatch(p.as_posix()) and p.is_file())
        for path in islice(found, TABLES):
            yield path.relative_to(folder).as_posix(), path.read_bytes()[:TABLE_LIMIT_BYTES]


def _tables_of_bucket(place: Place) -> Iterator[tuple[str, bytes]]:
    client, read = place.client(), 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix):
        for entry in page.get("Contents", []):
            if _TABLE_NAME.fullmatch(entry["Key"]) and entry["Size"] <= TABLE_LIMIT_BYTES and read < TABLES:
                read += 1
                body = client.get_object(Bucket=place.bucket, Key=entry["Key"])["Body"]
                yield entry["Key"].removeprefix(place.prefix).lstrip("/"), body.read()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _of_csv(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    lines = io.StringIO("".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")))
    rows = csv.DictReader(lines)
    columns = [column for column in rows.fieldnames or () if _COLUMN.fullmatch(column.strip())]
    try:
        for row in rows:
            yield from ((name, column, row[column] or "") for column in columns)
    except csv.Error:
        return  # what is no table has no column


def _of_json(name: str, body: Any) -> Iterator[tuple[str, str, str]]:
    """Every text under a key that names somebody, at any depth."""
    match body:
        case dict():
            for key, value in body.items():
                if isinstance(value, str) and _COLUMN.fullmatch(key):
                    yield name, key, value
                else:
                    yield from _of_json(name, value)
        case list():
            for value in body:
                yield from _of_json(name, value)
        case _:
            return
