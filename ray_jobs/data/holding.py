"""Files under locks: who uses one holds it, and the kernel lets go of what a process held that died."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import filelock

_ITS_OWN_TROUBLES = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.ENOLCK,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ENOTSUP,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)


class CacheRefusedError(Exception):
    """The cache cannot take this file now; the text says why. Callers go on without it."""


@dataclass(frozen=True)
class Held:
    """A file of the cache that stays while it is held."""

    path: Path
    descriptor: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.descriptor)

    def sha256(self) -> str:
        """Of the content on disk, in hex."""
        with open(self.descriptor, "rb", closefd=False) as stream:
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def folder_troubles(folder: Path) -> Iterator[None]:
    """Turns what is wrong with the cache's own folder (full, read-only, no locks ...) into CacheRefusedError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ITS_OWN_TROUBLES:
            raise
        raise CacheRefusedError(f"the cache {folder} cannot be used ({error.strerror})") from error


@contextmanager
def file_lock(path: Path, wait_s: float) -> Iterator[None]:
    """One at a time. Raises CacheRefusedError when another holds it for longer, and where files cannot be locked."""
    lock = filelock.FileLock(path)
    try:
        with folder_troubles(path.parent):
            lock.acquire(timeout=wait_s)
    except filelock.Timeout as error:
        raise CacheRefusedError(f"{path} is held by another process for more than {wait_s:.0f} s") from error
    except NotImplementedError as error:
        raise CacheRefusedError(f"the file system of {path.parent} carries no locks (flock)") from error
    try:
        yield
    finally:
        lock.release()


def locked(path: Path, flags: int, kind: int) -> Held | None:
    """The file under a lock, or None when another's lock is in the way or it was evicted meanwhile."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return Held(path, descriptor)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
