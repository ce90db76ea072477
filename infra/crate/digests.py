"""Digests by which two runs are compared: of a folder of code, of a file, of a folder or bucket of data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTENT_LIMIT_BYTES = 256 * 2**20
"""Data above this is known by its list of names and sizes: reading it would delay the job."""

FILES_LIMIT = 20_000
"""Files of data that are listed at most."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_of(folder: Path, left_out: frozenset[str] = frozenset()) -> dict[str, str]:
    """SHA-256 of each file of a folder, by relative path with slashes, sorted. Raises OSError."""
    found = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
    return {name: file_sha256(found[name]) for name in sorted(found) if name not in left_out}


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(place) / name for name in names if (Path(place) / name).is_file())


def tree_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over files of a tree, given as path -> SHA-256 of the content: equal names and contents, equal digest."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{files[name]}  {name}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class DataDigest:
    """What is known of a run's input. `sha256` is empty where nothing is, and `why` says why."""

    kind: str = "none"
    """content: over all bytes. listing: over names and sizes (of S3 objects their ETags too). none."""
    sha256: str = ""
    files: int = 0
    size_bytes: int = 0
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the ledger."""
        known = {"kind": self.kind, "sha256": self.sha256, "files": self.files, "size_bytes": self.size_bytes}
        return {**known, **({"why": self.why} if self.why else {})}


def digest_data(place: str | None) -> DataDigest:
    """Of a folder that this machine sees, or an s3:// URL; never raises, and never takes longer than seconds."""
    if place is None:
        return DataDigest(why="no data")
    try:
        if place.startswith("s3://"):
            return _of_bucket(place)
        folder = Path(place)
        return _of_folder(folder) if folder.is_dir() else DataDigest(why="not a folder of this machine")
    except Exception as error:  # noqa: BLE001 - a digest that cannot be had must not keep a job from running
        return DataDigest(why=type(error).__name__)


def _of_folder(folder: Path) -> DataDigest:
    sizes: dict[str, int] = {}
    for path in _walk(folder):
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
        if len(sizes) > FILES_LIMIT:
            return DataDigest(why=f"more than {FILES_LIMIT} files")
    size = sum(sizes.values())
    if size > CONTENT_LIMIT_BYTES:
        told = {name: str(count) for name, count in sizes.items()}
        return DataDigest("listing", tree_digest(told), len(sizes), size)
    contents = {name: file_sha256(folder / name) for name in sizes}
    return DataDigest("content", tree_digest(contents), len(sizes), size)


def _of_bucket(url: str) -> DataDigest:
    from dhctl.infra.object_store import Place

    place, found, size = Place.of(url), dict[str, str](), 0
    pages = place.client().get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
    for page in pages:
        for entry in page.get("Contents", []):
            found[entry["Key"].removeprefix(place.prefix)] = f"{entry['Size']} {entry.get('ETag', '')}"
            size += int(entry["Size"])
        if len(found) > FILES_LIMIT:
            return DataDigest(why=f"more than {FILES_LIMIT} files")
    return DataDigest("listing", tree_digest(found), len(found), size)
