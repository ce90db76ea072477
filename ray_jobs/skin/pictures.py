"""What is known of each picture before it is read: its file, class, lesion and, where the data says so, its part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.storage import StoredFile

SUFFIXES = (".jpg", ".jpeg", ".png")
"""File endings taken for pictures."""


@dataclass(frozen=True)
class Row:
    """One picture as a table or a dataset YAML tells of it."""

    name: str
    """Name of the picture, without folder and file ending."""
    label: int
    """Position of its class in the classes."""
    key: str | None = None
    """Its file in the data store, where the description says it."""
    lesion: str | None = None
    part: Part | None = None


@dataclass(frozen=True)
class Description:
    """A set of labelled pictures, before anybody has looked for the files."""

    source: str
    """The file it comes from, for messages."""
    classes: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Picture:
    """A labelled picture whose file is there."""

    name: str
    label: int
    lesion: str
    file: StoredFile
    part: Part | None
    """Part of the split that the data gives it; None where the job splits."""


@dataclass(frozen=True)
class Skipped:
    """A picture that is left out, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """All pictures of a data store that can be used, and those left out so far."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...]


def stem(path: str) -> str:
    """Name of a picture: the last part of a path without the ending of a picture, other dots kept."""
    name = PurePosixPath(path).name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def files_by_name(files: Iterable[StoredFile]) -> Mapping[str, list[StoredFile]]:
    """Picture files by the name of their picture; the same name may be in several folders."""
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        if file.key.lower().endswith(SUFFIXES):
            found.setdefault(stem(file.key), []).append(file)
    return found


def position(label: str, classes: tuple[str, ...], where: str) -> int:
    """Where a class stands among the classes. Raises RefusedInputError for one that is none of them."""
    try:
        return classes.index(label)
    except ValueError:
        raise RefusedInputError(
            f"{where}: the label is '{label}', which is none of the classes {', '.join(classes)}; correct it, "
            "or name all classes in job.params.classes"
        ) from None
