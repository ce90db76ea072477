"""Residency labels: at which site data may be used, as its store says, and a file beside the data itself.

`dataset.yaml` or `dataset.json` in the data's folder, or in any folder above it in the same bucket or file system, may
have the key `residency`. Other keys are passed over: dataset descriptions of other programs may have the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dhctl.infra.data.places import covers
from dhctl.infra.data.section import DataStore
from dhctl.infra.errors import RefusedError
from dhctl.infra.object_store import ObjectStoreError, Place

LABEL_FILES = ("dataset.yaml", "dataset.json")
LARGEST_BYTES = 16 * 2**20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LabelError(RefusedError):
    """A label that is there, but cannot be read."""


@dataclass(frozen=True)
class Label:
    """Data may be used at this site only; `by` says who says so."""

    residency: str
    by: str


def labels_of(place: str, stores: Mapping[str, DataStore]) -> list[Label]:
    """All labels of a URL or absolute folder. Raises LabelError for one that cannot be read. Only reads."""
    return [*store_labels(place, stores), *file_labels(place)]


def store_labels(place: str, stores: Mapping[str, DataStore]) -> list[Label]:
    """What the stores in which a place lies say, however the place was written."""
    return [
        Label(store.residency, f"store {name}")
        for name, store in stores.items()
        if store.residency and covers(store, place)
    ]


def file_labels(place: str) -> list[Label]:
    """What the files beside the data say. An S3 store that does not answer says nothing here."""
    if "://" in place and not place.startswith("s3://"):
        return []
    found = _on_s3(place) if "://" in place else _in_folders(Path(place))
    return [Label(residency, where) for where, content in found if (residency := _residency(where, content))]


def _in_folders(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in (above / name for above in (folder, *folder.parents) for name in LABEL_FILES):
        try:
            if path.is_file():
                yield str(path), path.read_bytes()[: LARGEST_BYTES + 1]
        except OSError as error:
            if path.parent == folder:
                told = f"the label {path} cannot be read ({error.strerror})"
                raise LabelError(told, "make it readable, or ask the data manager") from error


def _on_s3(url: str) -> Iterator[tuple[str, bytes]]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        place = Place.of(url)
        client = place.client()
    except (ObjectStoreError, BotoCoreError, ValueError):  # told by the check of the place itself
        return
    parts = place.prefix.split("/") if place.prefix else []
    for depth in range(len(parts), -1, -1):
        # Listed first: to ask for a key that is not there is "access denied" where keys are for one prefix only.
        wanted = {"/".join([*parts[:depth], name]) for name in LABEL_FILES}
        beginning = "/".join([*parts[:depth], "dataset."])
        try:
            listed = client.list_objects_v2(Bucket=place.bucket, Prefix=beginning).get("Contents", [])
        except ClientError:  # what is above a prefix is often closed; the prefix itself is told by the place's check
            continue
        except BotoCoreError:
            return
        for key in sorted(wanted & {item["Key"] for item in listed}):
            yield f"s3://{place.bucket}/{key}", _object(client, place.bucket, key)


def _object(client: Any, bucket: str, key: str) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read(LARGEST_BYTES + 1)
    except (ClientError, BotoCoreError) as error:
        told = f"the label s3://{bucket}/{key} cannot be read ({' '.join(str(error).split())[:200]})"
        raise LabelError(told, "ask the store's owner for the right to read it") from error
    return body


def _residency(where: str, content: bytes) -> str | None:
    if len(content) > LARGEST_BYTES:
        told = f"{where} is above {LARGEST_BYTES // 2**20} MiB, too large to look for a residency in it"
        raise LabelError(told, "give the large file another name")
    try:
        tree: Any = yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = f"{where} is no YAML or JSON, so whether it forbids this site cannot be known"
        raise LabelError(told, "repair or rename it") from error
    said = tree.get("residency") if isinstance(tree, dict) else None
    if said is not None and not isinstance(said, str):
        raise LabelError(f"{where}: residency is {said!r}, not a text", "write the site's name, such as site-a")
    return said
