"""Models and checkpoints that a run left in its output, by digest. All else there stays where it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhctl.infra.errors import RefusedError
from dhctl.infra.object_store import ObjectStoreError, Place

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
"""What counts as a model or a checkpoint: no table, no picture, no prediction."""

CHECKPOINT_STATE, CHECKPOINT_NOTE = "state.pt", "checkpoint.json"
"""Files of a checkpoint of dhctl.ray_jobs.training.checkpoint, which cannot be asked here: it imports torch."""

MOST = 50
"""The newest ones of more than this."""


@dataclass(frozen=True)
class StoredModel:
    """One file of the output. `key` is its path beneath it."""

    key: str
    sha256: str
    size_bytes: int


def stored_models(output: str, into: Path | None = None) -> list[StoredModel]:
    """The newest models and checkpoints of an output, by path; `into`: copied there under their digests as well.

    Empty where the output is gone. Raises RefusedError when it cannot be read.
    """
    try:
        found = list(_of_bucket(output, into) if output.startswith("s3://") else _of_folder(Path(output), into))
    except (OSError, ObjectStoreError) as error:
        raise RefusedError(f"the run's output cannot be read ({error})", "try again when it can be reached") from error
    return sorted(found, key=lambda model: model.key)


def _of_folder(folder: Path, into: Path | None) -> Iterator[StoredModel]:
    paths = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime)[-MOST:]:
        key, size = path.relative_to(folder).as_posix(), path.stat().st_size
        sha256 = None if into else _noted(key, lambda note: (folder / note).read_bytes())
        if sha256 is None:
            with path.open("rb") as source:
                sha256, size = _read(source, into)
        yield StoredModel(key, sha256, size)


def _of_bucket(output: str, into: Path | None) -> Iterator[StoredModel]:
    from botocore.exceptions import BotoCoreError, ClientError

    place = Place.of(output)
    try:
        client = place.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=f"{place.prefix}/")
        there = {one["Key"]: one for page in pages for one in page.get("Contents", [])}
        listed = [one for key, one in there.items() if key.endswith(SUFFIXES)]

        def body(key: str) -> Any:
            return client.get_object(Bucket=place.bucket, Key=place.key(key))["Body"]

        def note(key: str) -> bytes:
            if place.key(key) not in there:
                raise FileNotFoundError(key)
            content: bytes = body(key).read()
            return content

        for one in sorted(listed, key=lambda one: one["LastModified"])[-MOST:]:
            key, size = one["Key"].removeprefix(f"{place.prefix}/"), int(one["Size"])
            sha256 = None if into else _noted(key, note)
            if sha256 is None:
                sha256, size = _read(body(key), into)
            yield StoredModel(key, sha256, size)
    except (BotoCoreError, ClientError) as error:
        raise ObjectStoreError(f"{output.partition('?')[0]}: {error}") from error


def _noted(key: str, read: Callable[[str], bytes]) -> str | None:
    """The digest in the note that the training core writes beside a checkpoint: gigabytes are not read for it."""
    folder, _, name = key.rpartition("/")
    if name != CHECKPOINT_STATE:
        return None
    try:
        found = json.loads(read(f"{folder}/{CHECKPOINT_NOTE}"))["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # a checkpoint that is half written, or another tool's
    return str(found) if re.fullmatch("[0-9a-f]{64}", str(found)) else None


def _read(source: Any, into: Path | None) -> tuple[str, int]:
    """Digest and size of a stream, which is copied under its digest where that is asked for."""
    total, size = hashlib.sha256(), 0
    copy = (into / ".part").open("wb") if into else None
    try:
        while chunk := source.read(2**20):
            total.update(chunk)
            size += len(chunk)
            if copy:
                copy.write(chunk)
    finally:
        if copy:
            copy.close()
    if into:
        (into / ".part").replace(into / total.hexdigest())
    return total.hexdigest(), size
