"""From `STORE:FOLDER` to a URL or a folder, and back to the stores that a place lies in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from dhctl.infra.data.section import DataStore
from dhctl.infra.spec_base import NAME_PATTERN

_NAMED = re.compile(rf"({NAME_PATTERN.strip('^$')}):(?!//)(.*)")


class PlaceError(ValueError):
    """A place that names no store, or leads out of it; the text is a sentence."""


@dataclass(frozen=True)
class NamedPlace:
    """A folder in a store, as a user writes it: `STORE:FOLDER`, or `STORE:` for all of it."""

    store: str
    folder: str

    @classmethod
    def parse(cls, text: str) -> NamedPlace | None:
        """None for what is a plain URL or path. Raises PlaceError when the folder leads out of the store."""
        found = _NAMED.fullmatch(text)
        if found is None:
            return None
        parts = [part for part in found[3].split("/") if part not in {"", "."}]
        if ".." in parts or "?" in found[3]:
            raise PlaceError(f"'{text}' leads out of the store {found[1]}; write {found[1]}:FOLDER/FOLDER")
        return cls(found[1], "/".join(parts))

    def resolve(self, stores: Mapping[str, DataStore]) -> str:
        """The URL or folder. Raises PlaceError for an unknown store."""
        if self.store not in stores:
            known = f"known: {', '.join(sorted(stores))}" if stores else "none is defined"
            raise PlaceError(
                f"'{self.store}:{self.folder}' is in the store {self.store}, which is not defined ({known}); add it to "
                f"stores, or write ./{self.store}:{self.folder} for a folder of that name"
            )
        return beneath(stores[self.store].url, self.folder)


def beneath(url: str, folder: str) -> str:
    """A folder in a place; the options of an S3 URL stay at its end."""
    base, mark, query = url.partition("?") if "://" in url else (url, "", "")
    return f"{base.rstrip('/')}/{folder}{mark}{query}" if folder else url


def covers(store: DataStore, place: str) -> bool:
    """Whether a place (URL or absolute folder) lies in a store. Stores without an endpoint cover every endpoint."""
    ours, theirs = _parts(store.url), _parts(place)
    same_host = not ours.host or not theirs.host or ours.host == theirs.host
    return ours.scheme == theirs.scheme and same_host and theirs.path[: len(ours.path)] == ours.path


@dataclass(frozen=True)
class _Parts:
    scheme: str
    host: str
    path: Sequence[str]


def _parts(url: str) -> _Parts:
    if "://" not in url:
        return _Parts("", "", Path(url).parts)
    split = urlsplit(url)
    host = parse_qs(split.query).get("endpoint_override", [""])[-1].rpartition("://")[2]
    return _Parts(split.scheme, host, (split.netloc, *(part for part in split.path.split("/") if part)))
