"""Files of remote stores, kept on a node's disk and on a site's shared volume: fetched once, checked, resumed.

A node's cache asks the site's cache before it asks the store. Content is known by its SHA-256: from the dataset's
manifest, else from an earlier download of the same file (place, size, time of change).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dhctl.ray_jobs.data.holding import CacheRefusedError, Held, folder_troubles
from dhctl.ray_jobs.data.objects import ObjectFolder
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import CHUNK_BYTES, Store

NODE_FOLDER_ENV, NODE_SIZE_ENV = "DHCTL_CACHE_DIR", "DHCTL_CACHE_SIZE"
SITE_FOLDER_ENV, SITE_SIZE_ENV = "DHCTL_SITE_CACHE_DIR", "DHCTL_SITE_CACHE_SIZE"
DEFAULT_BYTES = 20 * 2**30
TRIES = 3
"""Of fetching what arrives with a wrong checksum."""

_checked: set[tuple[Path, str]] = set()
"""Objects whose content this process has read and compared with its name."""


class CorruptFileError(OSError):
    """The content of a file in a store is not what its manifest or its size says."""


@dataclass(frozen=True)
class Wanted:
    """A file of a store."""

    store: Store
    key: str
    size_bytes: int
    changed: str
    sha256: str | None = None
    """What the dataset's manifest says of its content."""

    @cached_property
    def reference(self) -> str:
        """A name for this state of the file, in hex."""
        what = (self.store.endpoint, self.store.path(self.key), str(self.size_bytes), self.sha256 or self.changed)
        return hashlib.sha256("\0".join(what).encode()).hexdigest()


@dataclass(frozen=True)
class Cache:
    """A cache of one node, or of a site. Can be sent to other processes."""

    objects: ObjectFolder
    beyond: Cache | None = None
    """Asked before the store."""

    def hold(self, wanted: Wanted) -> Held:
        """The file's content as a local file, which stays while it is held.

        Raises CacheRefusedError when the cache cannot take it, CorruptFileError, FileNotFoundError, and JobStoppedError
        when the store stays away.
        """
        held = self._known(wanted)
        if held:
            return held
        with self.objects.downloading(wanted.reference):
            return self._known(wanted) or self._fetched(wanted)

    def _known(self, wanted: Wanted) -> Held | None:
        sha256 = wanted.sha256 or self.objects.named(wanted.reference)
        if sha256 is None:
            return None
        with folder_troubles(self.objects.folder):
            held = self.objects.hold(sha256)
            if held is None or self._is_sound(held, sha256):
                return held
            held.close()
            self.objects.drop(sha256)
        wanted.store.patience.tell(f"{wanted.key} was damaged in the cache {self.objects.folder}; it is fetched again")
        return None

    def _is_sound(self, held: Held, sha256: str) -> bool:
        """Reads it at its first use in this process: disks forget, and half of a node may have crashed."""
        mark = (self.objects.folder, sha256)
        if mark not in _checked:
            if held.sha256() != sha256:
                return False
            _checked.add(mark)
        return True

    def _fetched(self, wanted: Wanted) -> Held:
        """From the store or the site's cache; goes on where an earlier download broke off."""
        part = self.objects.begin(wanted.reference, wanted.size_bytes)
        try:
            for _ in range(TRIES):
                self._fill(part, wanted)
                sha256 = part.sha256()
                if wanted.sha256 in {None, sha256}:
                    held = self.objects.settle(part, sha256, wanted.reference)
                    _checked.add((self.objects.folder, sha256))
                    if held.descriptor != part.descriptor:
                        part.close()
                    return held
                os.ftruncate(part.descriptor, 0)
            raise CorruptFileError(f"the content of {wanted.key} is not what manifest.json says; copy it there anew")
        except BaseException:
            part.close()
            raise

    def _fill(self, part: Held, wanted: Wanted) -> None:
        position = os.fstat(part.descriptor).st_size
        if position > wanted.size_bytes:
            position = 0
        for content in self._chunks(wanted, position):
            self._write(part, content, position)
            position += len(content)
        if position != wanted.size_bytes:
            os.ftruncate(part.descriptor, 0)
            raise CorruptFileError(f"{wanted.key} has {position} bytes, not {wanted.size_bytes}: it changed meanwhile")

    def _chunks(self, wanted: Wanted, start: int) -> Iterator[bytes]:
        try:
            held = self.beyond.hold(wanted) if self.beyond else None
        except CacheRefusedError as error:
            tell_once(wanted.store, f"{error}; files come from {wanted.store.told} itself")
            held = None
        if held is None:
            yield from wanted.store.chunks(wanted.key, start)
            return
        with held:
            while content := os.pread(held.descriptor, CHUNK_BYTES, start):
                yield content
                start += len(content)

    def _write(self, part: Held, content: bytes, position: int) -> None:
        """All of it; what was used longest ago makes room where the disk turns out to be full."""
        with folder_troubles(self.objects.folder):
            while content:
                try:
                    written = os.pwrite(part.descriptor, content, position)
                except OSError as error:
                    if error.errno != errno.ENOSPC or not self.objects.evict(len(content)):
                        raise
                    continue
                content, position = content[written:], position + written


_told: set[str] = set()


def tell_once(store: Store, text: str) -> None:
    """A warning, once a process."""
    if text not in _told:
        _told.add(text)
        store.patience.tell(text)


def cache_from(env: Mapping[str, str]) -> Cache | None:
    """The cache that DHCTL_CACHE_DIR, DHCTL_SITE_CACHE_DIR and their sizes in bytes describe, or None.

    Raises RefusedInputError.
    """
    node, site = env.get(NODE_FOLDER_ENV, ""), env.get(SITE_FOLDER_ENV, "")
    beyond = Cache(ObjectFolder(Path(site), _bytes(env, SITE_SIZE_ENV))) if site else None
    return Cache(ObjectFolder(Path(node), _bytes(env, NODE_SIZE_ENV)), beyond) if node else beyond


def _bytes(env: Mapping[str, str], name: str) -> int:
    text = env.get(name) or str(DEFAULT_BYTES)
    if not text.isdecimal() or int(text) == 0:
        raise RefusedInputError(f"{name} is '{text}'; set it to a number of bytes, such as {DEFAULT_BYTES}")
    return int(text)
