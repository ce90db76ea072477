"""A folder of files by the SHA-256 of their content, at most so many bytes, shared by processes and by nodes.

<folder>/objects/ab/ab12..   content            partial/<reference>.<bytes>.part   a download under way, or broken off
         names/cd/<reference>  link to an object  locks/    one writer a file, one tidying up; bytes counted

A reader holds a shared lock (flock) on what it uses, a download an exclusive one; what is locked is never evicted, and
the kernel lets go of the locks of a process that dies. Volumes between nodes must carry flock (NFS 4, CephFS and Lustre
do).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dhctl.ray_jobs.data.holding import CacheRefusedError, Held, file_lock, folder_troubles, locked

LOCK_WAIT_S = 60.0
DOWNLOAD_WAIT_S = 3600.0
"""Longest wait for another process that fetches the same file."""

KEPT_FREE = 0.05
"""Share of the disk that the cache leaves free for others."""

SPARE = 0.05
"""Share of the cache that is freed beyond what is needed."""


@dataclass(frozen=True)
class ObjectFolder:
    """See the module. Can be sent to other processes."""

    folder: Path
    size_bytes: int
    """Most that objects and downloads may have together."""

    def named(self, reference: str) -> str | None:
        """SHA-256 of the object that a reference leads to."""
        try:
            return self._name(reference).readlink().name
        except OSError:
            return None

    def hold(self, sha256: str) -> Held | None:
        """The object, marked as used just now; None when it is not there."""
        path = self._object(sha256)
        try:
            held = locked(path, os.O_RDONLY, fcntl.LOCK_SH)
        except FileNotFoundError:
            return None
        if held is not None:
            with suppress(OSError):  # another user's object: not ours to mark
                os.utime(path)
        return held

    def begin(self, reference: str, size_bytes: int) -> Held:
        """A file to write this content into, with what an earlier download left in it. Raises CacheRefusedError."""
        path = self.folder / "partial" / f"{reference}.{size_bytes}.part"
        with self._tidying():
            present = path.stat().st_size if path.exists() else None
            part = locked(path, os.O_RDWR, fcntl.LOCK_EX) if present is not None else None
            try:
                self._make_room(0 if part else size_bytes, size_bytes - (present or 0))
                part = part or locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
            except BaseException:
                if part:
                    part.close()
                raise
        if part is None:
            raise CacheRefusedError(f"{path} is held by another process")
        return part

    def settle(self, part: Held, sha256: str, reference: str) -> Held:
        """The finished download as an object, under its name. Raises CacheRefusedError."""
        target = self._object(sha256)
        with self._tidying():
            name = self._name(reference)
            name.parent.mkdir(exist_ok=True)
            fresh = name.with_name(f".{name.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(Path("../../objects") / sha256[:2] / sha256)  # nodes may mount the volume elsewhere
            fresh.replace(name)
            return self._in_place(part, target, sha256)

    def _in_place(self, part: Held, target: Path, sha256: str) -> Held:
        """The same content may be there under another name, and in use: then it stays."""
        there = self.hold(sha256)
        if there and there.sha256() == sha256:
            part.path.unlink()
            return there
        if there:
            there.close()
        target.parent.mkdir(exist_ok=True)
        part.path.replace(target)
        fcntl.flock(part.descriptor, fcntl.LOCK_SH)
        return Held(target, part.descriptor)

    def drop(self, sha256: str) -> None:
        """Removes an object whose content is wrong, used or not."""
        with self._tidying():
            self._object(sha256).unlink(missing_ok=True)

    def evict(self, needed_bytes: int) -> bool:
        """Frees so much on disk where something can go; whether that was enough. Raises CacheRefusedError."""
        with self._tidying():
            return self._evict(0, needed_bytes)

    @contextmanager
    def downloading(self, reference: str) -> Iterator[None]:
        """Held by the one who fetches this file. Raises CacheRefusedError after an hour behind another."""
        with folder_troubles(self.folder):
            for part in ("objects", "names", "partial", "locks"):
                (self.folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        # One of 4096 locks, so that their files do not pile up; two files of one lock wait for each other.
        with file_lock(self.folder / "locks" / f"{reference[:3]}.lock", DOWNLOAD_WAIT_S):
            yield

    @contextmanager
    def _tidying(self) -> Iterator[None]:
        with folder_troubles(self.folder), file_lock(self.folder / "locks" / "tidying.lock", LOCK_WAIT_S):
            yield

    def _make_room(self, counted_bytes: int, disk_bytes: int) -> None:
        """Evicts until so much more may be counted, and written. Raises CacheRefusedError."""
        if counted_bytes > self.size_bytes:
            raise CacheRefusedError(f"the file is larger than the cache {self.folder} ({self.size_bytes} bytes)")
        disk = shutil.disk_usage(self.folder)
        short = disk_bytes + int(disk.total * KEPT_FREE) - disk.free
        if (short > 0 or self._counted() + counted_bytes > self.size_bytes) and not self._evict(counted_bytes, short):
            why = "the disk is full" if short > 0 else "all of it is in use"
            raise CacheRefusedError(f"the cache {self.folder} has no room: {why}")
        self._count(self._counted() + counted_bytes)

    def _evict(self, counted_bytes: int, short_bytes: int) -> bool:
        """Removes what was used longest ago until so many more may be counted, and so many more are free on disk.

        When anything must go, a little more goes, so that a full cache is not looked through for each new file.
        """
        entries = sorted(self._entries(), key=lambda entry: entry.used_ns)
        counted = sum(entry.counted for entry in entries)
        most = self.size_bytes - counted_bytes
        aim = most - int(self.size_bytes * SPARE) if counted > most else most
        for entry in entries:
            if counted <= aim and short_bytes <= 0:
                break
            if entry.remove():
                counted, short_bytes = counted - entry.counted, short_bytes - entry.on_disk
        self._forget_names()
        self._count(counted)
        return counted <= most and short_bytes <= 0

    def _counted(self) -> int:
        """Bytes of all that is there, as last counted: never less than there are."""
        try:
            return int(self._count_file.read_text())
        except (FileNotFoundError, ValueError):
            return sum(entry.counted for entry in self._entries())

    def _count(self, counted: int) -> None:
        self._count_file.write_text(str(counted))

    @property
    def _count_file(self) -> Path:
        return self.folder / "locks" / "counted"

    def _entries(self) -> Iterator[_Entry]:
        for path in (*self.folder.glob("objects/*/*"), *self.folder.glob("partial/*.part")):
            with suppress(FileNotFoundError):
                yield _Entry.of(path)

    def _forget_names(self) -> None:
        for name in self.folder.glob("names/*/*"):
            if not name.exists():
                name.unlink(missing_ok=True)

    def _object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256[:2] / sha256

    def _name(self, reference: str) -> Path:
        return self.folder / "names" / reference[:2] / reference


@dataclass(frozen=True)
class _Entry:
    """A file that may be evicted."""

    path: Path
    counted: int
    on_disk: int
    used_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """A download counts with the size it will have, which its name says."""
        found = path.stat()
        counted = int(path.suffixes[-2][1:]) if path.suffix == ".part" else found.st_size
        return cls(path, counted, found.st_size, found.st_mtime_ns)

    def remove(self) -> bool:
        """Whether it could go: nobody holds it."""
        try:
            held = locked(self.path, os.O_RDWR, fcntl.LOCK_EX)
            if held is None:
                return False
            with held:
                self.path.unlink()
        except OSError:  # gone, or another user's
            return False
        return True
