"""What a data manager names on the command line, as a place that can be opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dhctl.infra.data.labels import Label, labels_of
from dhctl.infra.data.places import NamedPlace, PlaceError
from dhctl.infra.data.section import DataStore
from dhctl.infra.errors import RefusedError, UsageError
from dhctl.infra.object_store import problem_with
from dhctl.infra.spec import PHANTOMS
from dhctl.infra.spec_file import load_spec
from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError

if TYPE_CHECKING:
    from dhctl.ray_jobs.storage import Store

PATIENCE_S = 120.0
"""How long a verb waits for a store that does not answer; it can be called again and goes on."""


@dataclass(frozen=True)
class Dataset:
    """A folder or S3 prefix with data, and the stores that are known here."""

    told: str
    """As the user wrote it, or the place a spec leads to."""
    url: str
    stores: Mapping[str, DataStore]

    @cached_property
    def labels(self) -> list[Label]:
        """At which site it may be used. Raises LabelError."""
        return labels_of(self.url, self.stores)

    def open(self, tell: Callable[[str], None], *, wants_files: bool = True) -> Store:
        """Its store. Raises RefusedError where it cannot be reached, or nothing is in it although something must be."""
        from dhctl.ray_jobs.data.patience import Patience
        from dhctl.ray_jobs.storage import open_store  # brings in pyarrow

        problem = ""
        if self.url.startswith("s3://"):
            problem = problem_with(self.url, "the place", wants_files=wants_files)
        elif "://" in self.url:
            problem = f"{self.told} is of an unknown kind; use a folder, an s3:// URL or STORE:FOLDER"
        elif wants_files and not os.path.isdir(self.url):  # noqa: PTH112 - Path.is_dir raises where a folder is closed
            problem = f"there is no folder {self.url}; check the name, `dhctl data ls` shows the stores"
        if problem:
            raise RefusedError(problem)
        return replace(open_store(self.url), patience=Patience(PATIENCE_S, tell))


def dataset_of(word: str, stores: Mapping[str, DataStore]) -> Dataset:
    """The data of a spec file, `STORE[:FOLDER]`, an s3:// URL or a folder. Raises UsageError."""
    path = Path(word).expanduser()
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        spec = load_spec(path)
        if spec.data in {None, PHANTOMS}:
            raise UsageError(f"{word} names no data to move", "set data to a folder, an s3:// URL or STORE:FOLDER")
        return Dataset(str(spec.data), str(spec.data), {**stores, **spec.stores})
    if word in stores:
        return Dataset(f"{word}:", stores[word].url, stores)
    try:
        named = NamedPlace.parse(word)
        url = named.resolve(stores) if named else word
    except PlaceError as error:
        raise UsageError(str(error)) from error
    return Dataset(word, url if "://" in url else str(Path(url).expanduser().absolute()), stores)


@contextmanager
def store_troubles() -> Iterator[None]:
    """What a store or a disk says no to, as a sentence of this side."""
    try:
        yield
    except (JobStoppedError, RefusedInputError) as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        told = " ".join(str(error).split())[:300]
        raise RefusedError(f"cannot go on: {told}", "check rights and space, then call the verb again") from error
