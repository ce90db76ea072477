"""Names of patients, slides and images that a run's tables hold, so that a crate can be searched for them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dhctl.infra.object_store import Place
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import PHANTOMS

TABLE_LIMIT_BYTES = 64 * 2**20
TABLES = 500
"""Tables of one place that are read at most; a larger or further one is told as not read."""

_PERSON = r"patient|subject|person|mrn"
_COLUMN = re.compile(
    rf"(?:{_PERSON}|case|slide|image|lesion|series|study|scan|isic|dicom)[ _-]?(?:id|uid|name|no|number)?"
    r"|(?:series|study|sop)[ _]?(?:instance)?[ _]?uid",
    re.IGNORECASE,
)
"""Columns of a table, and keys of an index, whose values name somebody or something of somebody."""

_TABLE_NAME = re.compile(r".*\.(?:csv|ya?ml)|(?:.*/)?index-[0-9a-f]+\.json", re.IGNORECASE)
_LOCATION = re.compile(r"""location:\s*["']?([^"'\n]+)""")
"""An image of a dataset in the YAML of ECVL and EDDL, known by its file's name."""


@dataclass(frozen=True)
class Identifiers:
    """`known`: identifier -> table and column that have it. `unsearchable`: how many are too short to be told apart."""

    known: Mapping[str, str]
    unsearchable: int
    unread: int
    """Tables that are too large, or too many."""


def identifiers_of(record: RunRecord) -> Identifiers:
    """From the tables of the data and of the output, and from what jobs said they skipped.

    Raises ObjectStoreError, OSError when a place cannot be read: a crate that was not searched is not written.
    """
    known: dict[str, str] = {}
    unsearchable: set[str] = set()
    unread: list[str] = []
    for where, column, value in _values(record, unread):
        text = value.strip()
        if _searchable(text, column):
            known.setdefault(text.casefold(), f"{where}, {column}")
        elif text:
            unsearchable.add(text)
    return Identifiers(known, len(unsearchable), len(unread))


def _searchable(value: str, column: str) -> bool:
    """Whether finding it somewhere means something: `7` and `benign` are everywhere, `P0007` is not."""
    digits, letters = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    if digits and letters:
        return len(value) >= 4
    if digits:
        return len(value) >= 6
    return letters and len(value) >= 5 and re.match(_PERSON, column, re.IGNORECASE) is not None


def _values(record: RunRecord, unread: list[str]) -> Iterator[tuple[str, str, str]]:
    """Table, column, value; tables that are not read are put into `unread`."""
    places = [record.output, *([record.spec.data] if record.spec.data not in (None, PHANTOMS) else [])]
    for place in places:
        for count, (name, size, read) in enumerate(_tables(str(place))):
            if size > TABLE_LIMIT_BYTES or count >= TABLES:
                unread.append(name)
                continue
            yield from _of_table(name, read().decode("utf-8-sig", errors="replace"))
    for number in range(1, record.last_job() + 1):
        path = record.job_dir(number) / "result.json"
        if path.exists():
            yield from _of_json(f"the result of job {number}", _parsed(path.read_text(encoding="utf-8")))


Table = tuple[str, int, Callable[[], bytes]]
"""Name, size in bytes, and a way to its content."""


def _tables(place: str) -> Iterator[Table]:
    if place.startswith("s3://"):
        yield from _tables_of_bucket(Place.of(place))
        return
    folder = Path(place)
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if _TABLE_NAME.fullmatch(path.name) and path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size, path.read_bytes


def _tables_of_bucket(place: Place) -> Iterator[Table]:
    client = place.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix):
        for entry in page.get("Contents", []):
            key = entry["Key"]
            if _TABLE_NAME.fullmatch(key):
                read = partial(_object, client, place.bucket, key)
                yield key.removeprefix(place.prefix).lstrip("/"), int(entry["Size"]), read


def _object(client: Any, bucket: str, key: str) -> bytes:
    content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def _of_table(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    match Path(name).suffix.lower():
        case ".csv":
            yield from _of_csv(name, text)
        case ".json":
            yield from _of_json(name, _parsed(text))
        case _:
            yield from ((name, "image", Path(found.strip()).stem) for found in _LOCATION.findall(text))


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
