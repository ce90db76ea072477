"""One way to read and write a folder or an S3 prefix: a pyarrow file system and a root path.

S3 takes its keys from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (or the machine's role), its region
from AWS_REGION or AWS_DEFAULT_REGION, any endpoint from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Path style.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

from dhctl.ray_jobs.environment import RefusedInputError


@dataclass(frozen=True)
class StoredFile:
    """A file in a store: its key (relative path), size, and time of change as text."""

    key: str
    size_bytes: int
    changed: str


@dataclass(frozen=True)
class Store:
    """A folder or S3 prefix. Can be sent to Ray tasks. Keys are relative paths with slashes."""

    filesystem: fs.FileSystem
    root: str
    url: str
    """As the user wrote it, for messages."""

    @property
    def is_local(self) -> bool:
        """Whether keys are files of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, key: str) -> str:
        """The full path of a key, as the file system wants it."""
        return f"{self.root}/{key}" if key else self.root

    def beneath(self, key: str) -> Store:
        """The store of a folder in this one."""
        return Store(self.filesystem, self.path(key), f"{self.url.partition('?')[0].rstrip('/')}/{key}")

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        found: bool = self.filesystem.get_file_info(self.path(key)).type == fs.FileType.File
        return found

    def files(self, under: str = "", deep: bool = False) -> list[StoredFile]:
        """The files of a folder, sorted by key; with `deep` those of its subfolders too. A missing folder is empty."""
        selector = fs.FileSelector(self.path(under), recursive=deep, allow_not_found=True)
        found = (info for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File)
        return sorted(
            (StoredFile(info.path[len(self.root) + 1 :], info.size, str(info.mtime_ns)) for info in found),
            key=lambda file: file.key,
        )

    def read(self, key: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        with self.filesystem.open_input_stream(self.path(key)) as stream:
            content: bytes = stream.read()
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write a file as a whole: a reader sees the old one or the new one, never a part."""
        if not self.is_local:  # an S3 object appears when its upload is complete
            with self.filesystem.open_output_stream(self.path(key)) as stream:
                stream.write(content)
            return
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        partial.write_bytes(content)
        partial.replace(target)

    def read_json(self, key: str) -> Any:
        """The content of a JSON file. Raises FileNotFoundError."""
        return json.loads(self.read(key))

    def write_json(self, key: str, content: Any) -> None:
        """Write a JSON file as a whole."""
        self.write(key, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file to this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        local = fs.LocalFileSystem()
        fs.copy_files(self.path(key), str(target), source_filesystem=self.filesystem, destination_filesystem=local)


def open_store(url: str, env: Mapping[str, str] | None = None) -> Store:
    """The store at a folder or s3://bucket/prefix. Opens no connection. Raises RefusedInputError."""
    if not url.startswith("s3://"):
        return Store(fs.LocalFileSystem(), str(Path(url).absolute()), url)
    parts = urlsplit(url)
    if not parts.netloc:
        raise RefusedInputError(f"'{url}' names no bucket; write s3://BUCKET/PREFIX")
    root = f"{parts.netloc}{parts.path}".rstrip("/")
    options = s3_options(url, os.environ if env is None else env)
    return Store(fs.S3FileSystem(**options), root, url)


def s3_options(url: str, env: Mapping[str, str]) -> dict[str, str]:
    """Options of pyarrow's S3FileSystem for this URL: its query (endpoint_override, scheme, region) before `env`."""
    query = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    unknown = sorted(set(query) - {"endpoint_override", "scheme", "region"})
    if unknown:
        raise RefusedInputError(f"'{url}' has the option {unknown[0]}; use endpoint_override, scheme or region")
    options = dict(query)
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        scheme, _, host = endpoint.rpartition("://")
        options["endpoint_override"] = host.rstrip("/")
        options.setdefault("scheme", scheme or "https")
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    if region or "endpoint_override" in options:
        options.setdefault("region", region or "us-east-1")
    keys = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    if all(env.get(name) for name in keys.values()):
        options |= {option: env[name] for option, name in keys.items()}
        if env.get("AWS_SESSION_TOKEN"):
            options["session_token"] = env["AWS_SESSION_TOKEN"]
    return options
