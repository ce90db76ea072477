"""Copying a dataset from store to store: side by side, with checksums, going on where an earlier copy stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace

from dhctl.infra.data.destination import Destination, Transfer
from dhctl.infra.errors import RefusedError
from dhctl.ray_jobs.data.manifest import MANIFEST, ManifestEntry, read_manifest, write_manifest
from dhctl.ray_jobs.data.patience import Patience
from dhctl.ray_jobs.environment import JobStoppedError
from dhctl.ray_jobs.storage import Store, StoredFile

UNFINISHED = "manifest.unfinished.json"
"""What is copied so far; the manifest itself appears when all is."""

THREADS = 4
NOTE_EVERY_S = 20.0


@dataclass(frozen=True)
class Copied:
    """How a copy ended."""

    files: int
    size_bytes: int
    there_already: int
    """Files that an earlier copy had left, unchanged since."""


def files_of(source: Store) -> list[StoredFile]:
    """Files of a dataset, less the manifests, which are about one place."""
    return [file for file in source.files(deep=True) if file.key not in {MANIFEST, UNFINISHED}]


def copy_dataset(
    source: Store, target: Destination, files: Sequence[StoredFile], progressed: Callable[[int], None]
) -> Copied:
    """Copies what is not there yet, then writes the manifest. `progressed` is told bytes.

    Raises RefusedError where a file of the source is not what the source's own manifest says, or where another
    program's manifest.json is in the way.
    """
    known = _known(target.store)
    there = {file.key: file.size_bytes for file in target.store.files(deep=True)}
    kept = {file.key: known[file.key] for file in files if _same(file, known.get(file.key), there)}
    missing = [file for file in files if file.key not in kept]
    for entry in kept.values():
        progressed(entry.size_bytes)
    entries = dict(kept)
    expected = read_manifest(source) or {}
    try:
        noted = time.monotonic()
        for entry in _copied(source, target, missing, Transfer(progressed)):
            _require_expected(entry, expected, source)
            entries[entry.key] = entry
            if time.monotonic() - noted > NOTE_EVERY_S:
                write_manifest(target.store, entries.values(), source.told, UNFINISHED)
                noted = time.monotonic()
    except BaseException:
        _note_at_once(target.store, entries.values(), source.told)
        raise
    write_manifest(target.store, entries.values(), source.told)
    target.store.remove(UNFINISHED)
    return Copied(len(entries), sum(entry.size_bytes for entry in entries.values()), len(kept))


def _note_at_once(store: Store, entries: Collection[ManifestEntry], source: str) -> None:
    """What is copied so far, if the store takes it now: it may be the one that is away, and Ctrl-C waits for nobody."""
    with suppress(OSError, JobStoppedError):
        write_manifest(replace(store, patience=Patience(0.0, store.patience.tell)), entries, source, UNFINISHED)


def _known(target: Store) -> Mapping[str, ManifestEntry]:
    finished = read_manifest(target)
    if finished is None and target.exists(MANIFEST):
        raise RefusedError(f"{target.told} has a {MANIFEST} of another program", "choose a folder of its own")
    return {**(finished or {}), **(read_manifest(target, UNFINISHED) or {})}


def _same(file: StoredFile, known: ManifestEntry | None, there: Mapping[str, int]) -> bool:
    """Whether an earlier copy of this state of the file is there."""
    return (
        known is not None
        and known.changed == file.changed
        and known.size_bytes == file.size_bytes == there.get(file.key)
    )


def _copied(
    source: Store, target: Destination, files: Sequence[StoredFile], transfer: Transfer
) -> Iterator[ManifestEntry]:
    """Entries as files are done. When one fails, or the caller leaves, the others stop at their next piece."""

    def copy(file: StoredFile) -> ManifestEntry:
        return ManifestEntry(file.key, file.size_bytes, target.put(file, source, transfer), file.changed)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="dhctl-copy") as pool:
        try:
            for done in as_completed([pool.submit(copy, file) for file in files]):
                yield done.result()
        finally:
            transfer.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _require_expected(entry: ManifestEntry, expected: Mapping[str, ManifestEntry], source: Store) -> None:
    told = expected.get(entry.key)
    if told and told.sha256 != entry.sha256:
        raise RefusedError(
            f"the content of {entry.key} is not what the manifest of {source.told} says",
            "`dhctl data verify` names all such files",
        )
