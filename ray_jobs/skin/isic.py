"""The layout of the ISIC challenges: a table of labels, one-hot or by name, and a table that names the lesion.

ISIC 2018 (task 3) and 2019 give `..._GroundTruth.csv` with the column `image` and one column a class, and the lesions
in `..._LesionGroupings.csv` or `..._Metadata.csv`. HAM10000's own table has `image_id`, `dx` and `lesion_id` in one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.skin.pictures import Description, Row, position, stem

IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id")
LABEL_COLUMNS = ("label", "dx", "diagnosis", "class")
LESION_COLUMNS = ("lesion_id", "lesion")

OTHER_COLUMNS = ("age", "age_approx", "patient_id", "sex", "score_weight", "validation_weight", "target")
"""Columns of numbers in tables of ISIC that are no classes."""


@dataclass(frozen=True)
class Table:
    """A CSV file whose first line names its columns."""

    source: str
    columns: Mapping[str, str]
    """Name in lower case -> as it is written."""
    lines: tuple[Mapping[str, str | None], ...]

    def column(self, names: tuple[str, ...]) -> str | None:
        """The first of these columns that is there, as it is written."""
        return next((self.columns[name] for name in names if name in self.columns), None)

    @property
    def label(self) -> str | None:
        """The column that names the class."""
        return self.column(LABEL_COLUMNS) if self.column(IMAGE_COLUMNS) else None

    @property
    def one_hot(self) -> tuple[str, ...]:
        """The columns of classes, where each class has one: those with a number in the first line. Empty else."""
        if self.label or not self.column(IMAGE_COLUMNS) or not self.lines:
            return ()
        known = {*IMAGE_COLUMNS, *LESION_COLUMNS, *OTHER_COLUMNS}
        others = (written for name, written in self.columns.items() if name not in known)
        found = tuple(written for written in others if _number(cell(self.lines[0], written)) is not None)
        return found if len(found) > 1 else ()

    @property
    def has_labels(self) -> bool:
        """Whether this is a table of labels."""
        return bool(self.label or self.one_hot)

    def named_lines(self) -> Iterator[tuple[str, str, Mapping[str, str | None]]]:
        """(place for messages, picture, line). Raises RefusedInputError for lines without a picture and for doubles."""
        image = self.column(IMAGE_COLUMNS)
        assert image is not None
        seen: set[str] = set()
        for number, line in enumerate(self.lines, start=2):
            where, name = f"{self.source}, line {number}", stem(cell(line, image))
            if not name:
                raise RefusedInputError(f"{where}: the column {image} is empty; fill in or remove the line")
            if name in seen:
                raise RefusedInputError(f"{where}: picture {name} is there twice; remove one of the lines")
            seen.add(name)
            yield where, name, line


def read_table(content: bytes, source: str) -> Table:
    """A CSV file as a table; bytes that are no UTF-8 are replaced."""
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig", errors="replace")))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    return Table(source, columns, tuple(reader))


def read_labels(table: Table, chosen: tuple[str, ...] | None) -> Description:
    """Pictures and classes of a table of labels. The classes are `chosen`, else those of the table.

    Raises RefusedInputError with the line of the first problem, and for a table without labels.
    """
    if not table.has_labels:
        raise RefusedInputError(
            f"{table.source} has the columns {', '.join(table.columns.values()) or 'none'}; it needs image and either "
            "one column of 0 and 1 for each class, or the column label"
        )
    if not table.lines:
        raise RefusedInputError(f"{table.source} has no line below its header; add one line a picture")
    lesion = table.column(LESION_COLUMNS)
    told: list[tuple[str, str, str, str | None]] = []
    for where, name, line in table.named_lines():
        label = cell(line, table.label) if table.label else _one_hot_label(line, table.one_hot, where)
        told.append((where, name, label, cell(line, lesion) or None if lesion else None))
    classes = chosen or table.one_hot or tuple(sorted({label for _, _, label, _ in told}))
    rows = (Row(name, position(label, classes, where), lesion=group) for where, name, label, group in told)
    return Description(table.source, classes, tuple(rows))


def read_lesions(table: Table) -> dict[str, str]:
    """Lesion of each picture, where a table names it."""
    lesion = table.column(LESION_COLUMNS)
    if lesion is None or table.column(IMAGE_COLUMNS) is None:
        return {}
    found = ((name, cell(line, lesion)) for _, name, line in table.named_lines())
    return {name: group for name, group in found if group}


def cell(line: Mapping[str, str | None], column: str) -> str:
    """The text of a cell; a short line has None in its last columns."""
    return (line[column] or "").strip()


def _one_hot_label(line: Mapping[str, str | None], classes: tuple[str, ...], where: str) -> str:
    values = {name: _number(cell(line, name)) for name in classes}
    ones = [name for name, value in values.items() if value == 1]
    strange = [name for name, value in values.items() if value not in (0, 1)]
    if strange:
        raise RefusedInputError(f"{where}: {strange[0]} is '{cell(line, strange[0])}'; it must be 0 or 1")
    if len(ones) != 1:
        raise RefusedInputError(f"{where}: the classes with a 1 are {', '.join(ones) or 'none'}; it must be one")
    return ones[0]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
