"""Files of a store as local files, through the caches where the run has them. The one seam between jobs and caches.

with staged(store, [key, *others]) as paths: ...      whole slides, in their own folders
cached(store).read(key)                               one file again and again, such as a shard
with prefetched(store, keys): ...                     what comes next, while this is worked on
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dhctl.ray_jobs.data.cache import Cache, CorruptFileError, Wanted, cache_from, tell_once
from dhctl.ray_jobs.data.holding import CacheRefusedError
from dhctl.ray_jobs.data.manifest import ManifestEntry, read_manifest
from dhctl.ray_jobs.data.patience import Patience
from dhctl.ray_jobs.environment import JobStoppedError
from dhctl.ray_jobs.storage import Store

THREADS = 4
"""Files fetched side by side by one process."""

AHEAD_SHARE = 0.5
"""Of the cache's size: more is not fetched ahead, so that what comes next is not evicted for what comes later."""

_manifests: dict[tuple[str, str], Mapping[str, ManifestEntry]] = {}
_wanted: dict[tuple[str, str], Wanted] = {}


@contextmanager
def staged(store: Store, keys: Sequence[str]) -> Iterator[list[Path]]:
    """Local paths of these files while the block lasts, in the order of `keys`; those of a folder are used in place.

    Relative paths are kept: the folder of a MIRAX slide lies beside it under its own name. Raises CorruptFileError
    where the content is not what the dataset's manifest says, FileNotFoundError, and JobStoppedError when the store
    stays away or no disk has room for the files.
    """
    if store.is_local:
        yield [Path(store.path(key)) for key in keys]
        return
    cache = cache_from(os.environ)
    with TemporaryDirectory(prefix="dhctl-staged-") as name, ExitStack() as holding:
        folder = Path(name)
        with ThreadPoolExecutor(THREADS) as pool:
            placing = [pool.submit(_place, wanted(store, key), folder / key, cache, holding) for key in keys]
        for placed in placing:
            placed.result()
        yield [folder / key for key in keys]


def cached(store: Store) -> Store:
    """The same store; files that `read` gives come through the caches. Only for files that never change."""
    cache = None if store.is_local else cache_from(os.environ)
    if cache is None:
        return store
    return CachedStore(**{f.name: getattr(store, f.name) for f in fields(store)}, plain=store, cache=cache)


@dataclass(frozen=True)
class CachedStore(Store):
    """A store whose files are read through a cache."""

    plain: Store = field(kw_only=True)
    cache: Cache = field(kw_only=True)

    def read(self, key: str) -> bytes:
        """The content of a file. Raises as `staged` does."""
        place = (self.endpoint, self.path(key))
        if place not in _wanted:
            _wanted[place] = wanted(self.plain, key)
        found = _wanted[place]
        try:
            with self.cache.hold(found) as held:
                return held.path.read_bytes()
        except CacheRefusedError as error:
            _tell_without(self, error)
        content = self.plain.read(key)
        if found.sha256 not in {None, hashlib.sha256(content).hexdigest()}:
            raise _corrupt(key)
        return content


@contextmanager
def prefetched(store: Store, keys: Sequence[str]) -> Iterator[None]:
    """Fetches these files into the cache, in their order, while the block runs; leaves the rest when it ends.

    Does nothing without a cache. Never fails: what cannot be had is asked for again by whoever uses it.
    """
    cache = None if store.is_local else cache_from(os.environ)
    if cache is None:
        yield
        return
    ahead = _Ahead(cache, replace(store, patience=Patience(0.0, lambda _: None)))
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="dhctl-prefetch")
    try:
        for key in keys:
            pool.submit(ahead.fetch, key)
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Ahead:
    def __init__(self, cache: Cache, store: Store) -> None:
        self._cache, self._store, self._lock = cache, store, threading.Lock()
        self._room = int(cache.objects.size_bytes * AHEAD_SHARE)

    def fetch(self, key: str) -> None:
        with suppress(OSError, CacheRefusedError, JobStoppedError):
            found = wanted(self._store, key)
            with self._lock:
                self._room -= found.size_bytes
                fits = self._room >= 0
            if fits:
                self._cache.hold(found).close()


def wanted(store: Store, key: str) -> Wanted:
    """What is known of a file before it is fetched: by the manifest, else by the store. Raises FileNotFoundError."""
    place = (store.endpoint, store.root)
    if place not in _manifests:
        _manifests[place] = read_manifest(store) or {}
    entry = _manifests[place].get(key)
    if entry:
        return Wanted(store, key, entry.size_bytes, "", entry.sha256)
    found = store.stat(key)
    return Wanted(store, key, found.size_bytes, found.changed)


def _place(found: Wanted, target: Path, cache: Cache | None, holding: ExitStack) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if cache:
            held = cache.hold(found)
            holding.callback(held.close)
            target.symlink_to(held.path)
            return
    except CacheRefusedError as error:
        _tell_without(found.store, error)
    _copy(found, target)


def _copy(found: Wanted, target: Path) -> None:
    try:
        found.store.fetch(found.key, target)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise JobStoppedError(
                f"no space left for {found.key} under {target.parent}; give the workers larger disks"
            ) from error
        raise
    if found.sha256:
        with target.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != found.sha256:
                raise _corrupt(found.key)


def _corrupt(key: str) -> CorruptFileError:
    return CorruptFileError(f"the content of {key} is not what manifest.json says; `dhctl data verify` names all such")


def _tell_without(store: Store, error: CacheRefusedError) -> None:
    tell_once(store, f"{error}; the job goes on without it and reads from {store.told}")
