"""The manifest of a dataset: `manifest.json` beside its files, with size and SHA-256 of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import Store

MANIFEST = "manifest.json"
FORMAT = 1
MAKER = "dhctl data stage"


@dataclass(frozen=True)
class ManifestEntry:
    """What a manifest says of one file."""

    key: str
    size_bytes: int
    sha256: str
    changed: str = ""
    """Time of change of the file it was copied from, as its store tells it."""


def read_manifest(store: Store, name: str = MANIFEST) -> Mapping[str, ManifestEntry] | None:
    """Entries by key; None where the dataset has no manifest, or a file of that name that is something else.

    Raises RefusedInputError where it is ours and damaged.
    """
    try:
        content = store.read(name)
    except FileNotFoundError:
        return None
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("maker") != MAKER:
        return None
    try:
        return {entry.key: entry for entry in map(_entry, body["files"])}
    except (KeyError, TypeError, ValueError) as error:
        told = f"{name} in {store.told} is damaged ({type(error).__name__}: {error}); stage the dataset again"
        raise RefusedInputError(told) from error


def write_manifest(store: Store, entries: Iterable[ManifestEntry], source: str, name: str = MANIFEST) -> None:
    """Writes it as a whole. `source` says for people where the files came from."""
    files = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.key)]
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    store.write_json(name, {"maker": MAKER, "format": FORMAT, "made_at": made_at, "source": source, "files": files})


def _entry(row: Mapping[str, Any]) -> ManifestEntry:
    entry = ManifestEntry(str(row["key"]), int(row["size_bytes"]), str(row["sha256"]), str(row.get("changed", "")))
    if len(entry.sha256) != 64:
        raise ValueError(f"{entry.key} has no SHA-256")
    return entry
