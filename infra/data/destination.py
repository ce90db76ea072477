"""Writing files where a dataset is staged: into a folder, or into a bucket. A file appears whole or not at all."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dhctl.infra.object_store import ObjectStoreError, Place, is_away
from dhctl.ray_jobs.storage import Store, StoredFile


class StoppedError(Exception):
    """Another file failed, or the user asked to stop."""


@dataclass(frozen=True)
class Transfer:
    """What the copies of one call share."""

    progressed: Callable[[int], None]
    """Told bytes as they arrive; fewer than none where some must be sent again."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when nothing more shall be copied."""


class Destination(Protocol):
    """Where files go."""

    store: Store
    """The same place, for reading."""

    def put(self, file: StoredFile, source: Store, transfer: Transfer) -> str:
        """Copies a file; its SHA-256. Raises StoppedError once the transfer stops, and what the stores raise."""


def destination(store: Store) -> Destination:
    """For the place of a store."""
    return FolderDestination(store) if store.is_local else BucketDestination(store)


class FolderDestination:
    """A folder. A file that was broken off goes on where it stopped."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, file: StoredFile, source: Store, transfer: Transfer) -> str:
        """See Destination."""
        target = Path(self.store.path(file.key))
        target.parent.mkdir(parents=True, exist_ok=True)
        state = hashlib.sha256(f"{source.path(file.key)} {file.size_bytes} {file.changed}".encode()).hexdigest()[:12]
        part = target.with_name(f".{target.name}.{state}.part")
        with part.open("a+b") as sink:
            sink.seek(0)
            digest = hashlib.file_digest(sink, "sha256")
            start = sink.tell()
            transfer.progressed(start)
            for content in _chunks(source, file.key, start, transfer):
                digest.update(content)
                sink.write(content)
        part.replace(target)
        return digest.hexdigest()


class BucketDestination:
    """An S3 prefix. boto3 sends with checksums, in parts, and takes back the parts of what fails.

    Its own retries cover less than a second; the store's patience comes on top.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._place = Place.of(store.url)
        self._client = self._place.client()

    def put(self, file: StoredFile, source: Store, transfer: Transfer) -> str:
        """See Destination. Raises JobStoppedError when the bucket stays away, ObjectStoreError when it refuses."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        sent = 0

        def counted(size: int) -> None:
            nonlocal sent
            sent += size
            transfer.progressed(size)

        def upload() -> str:
            counted(-sent)
            reader = _Reader(_chunks(source, file.key, 0, Transfer(counted, transfer.stop)))
            self._client.upload_fileobj(reader, self._place.bucket, self._place.key(file.key))
            return reader.digest.hexdigest()

        try:
            return self.store.patience.ask(upload, self.store.told, is_away)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            told = f"{file.key} could not be written to {self.store.told} ({' '.join(str(error).split())[:200]})"
            raise ObjectStoreError(told, "call the verb again: it goes on with what is missing") from error


class _Reader(io.RawIOBase):
    """Chunks as a file, with the digest of what was read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._left = chunks, b""
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        """It is; and not seekable."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes while there are so many, as uploads in parts want it."""
        while size < 0 or len(self._left) < size:
            content = next(self._chunks, b"")
            if not content:
                break
            self.digest.update(content)
            self._left += content
        wanted = len(self._left) if size < 0 else size
        taken, self._left = self._left[:wanted], self._left[wanted:]
        return taken


def _chunks(source: Store, key: str, start: int, transfer: Transfer) -> Iterator[bytes]:
    for content in source.chunks(key, start):
        if transfer.stop.is_set():
            raise StoppedError
        yield content
        transfer.progressed(len(content))
