"""One way to read and write a folder or an S3 prefix: a pyarrow file system and a root path.

S3 takes its keys from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (or the machine's role), its region
from AWS_REGION or AWS_DEFAULT_REGION, any endpoint from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Path style. A store
that does not answer is asked again for minutes (dhctl.ray_jobs.data.patience); then each method raises JobStoppedError.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

from dhctl.ray_jobs.data.patience import Patience, patience_from
from dhctl.ray_jobs.environment import RefusedInputError

CONNECT_S, REQUEST_S, TRIES = 5.0, 60.0, 3
"""Limits of one call to S3; the client's own tries are few, because the caller's patience comes on top."""

LASTING_TRIES = 10
"""Where no patience comes on top: pauses that double from 25 ms come to a minute (measured: 67 s)."""

CHUNK_BYTES = 8 * 2**20
"""Read at once when a file is copied: one ranged request."""

Answer = TypeVar("Answer")


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
    endpoint: str = ""
    """Host of the S3 service, where one is named."""
    patience: Patience = field(default_factory=Patience, compare=False)
    """How long it is asked again when it does not answer."""

    @property
    def is_local(self) -> bool:
        """Whether keys are files of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def place(self) -> str:
        """What `open_store` opens it by in another process, whose working directory is another one."""
        return self.root if self.is_local else self.url

    @property
    def told(self) -> str:
        """The store in a sentence: its URL, with the endpoint where there is one."""
        place = self.url.partition("?")[0]
        return f"{place} (endpoint {self.endpoint})" if self.endpoint else place

    def path(self, key: str) -> str:
        """The full path of a key, as the file system wants it."""
        return f"{self.root}/{key}" if key else self.root

    def beneath(self, key: str) -> Store:
        """The store of a folder in this one."""
        return replace(self, root=self.path(key), url=f"{self.url.partition('?')[0].rstrip('/')}/{key}")

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        found: bool = self._ask(lambda: self.filesystem.get_file_info(self.path(key)).type == fs.FileType.File)
        return found

    def files(self, under: str = "", deep: bool = False) -> list[StoredFile]:
        """The files of a folder, sorted by key; with `deep` those of its subfolders too. A missing folder is empty."""
        selector = fs.FileSelector(self.path(under), recursive=deep, allow_not_found=True)
        found = (info for info in self._ask(lambda: self.filesystem.get_file_info(selector)) if info.is_file)
        return sorted((self._stored(info) for info in found), key=lambda file: file.key)

    def folders(self, under: str = "") -> list[str]:
        """Keys of the folders that lie in a folder, sorted. A missing folder is empty."""
        selector = fs.FileSelector(self.path(under), allow_not_found=True)
        found = self._ask(lambda: self.filesystem.get_file_info(selector))
        return sorted(info.path[len(self.root) + 1 :] for info in found if info.type == fs.FileType.Directory)

    def stat(self, key: str) -> StoredFile:
        """Size and time of change of a file. Raises FileNotFoundError."""
        info = self._ask(lambda: self.filesystem.get_file_info(self.path(key)))
        if not info.is_file:
            raise FileNotFoundError(f"{key} is not in {self.told}")
        return self._stored(info)

    def read(self, key: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

        def whole() -> bytes:
            with self.filesystem.open_input_stream(self.path(key)) as stream:
                content: bytes = stream.read()
            return content

        return self._ask(whole)

    def head(self, key: str, size: int) -> bytes:
        """The first bytes of a file, at most `size`. Raises FileNotFoundError."""

        def first() -> bytes:
            with self.filesystem.open_input_file(self.path(key)) as stream:
                content: bytes = stream.read_at(size, 0)
            return content

        return self._ask(first)

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """The content of a file from a byte on, in pieces of at most CHUNK_BYTES; each piece is asked for anew when the
        store goes away in the midst. Raises FileNotFoundError.
        """
        position, opened = start, list[Any]()

        def piece() -> bytes:
            if not opened:
                opened.append(self.filesystem.open_input_file(self.path(key)))
            try:
                content: bytes = opened[0].read_at(CHUNK_BYTES, position)
            except OSError:
                opened.pop().close()  # a new connection for the next try
                raise
            return content

        try:
            while content := self._ask(piece):
                yield content
                position += len(content)
        finally:
            for stream in opened:
                stream.close()

    def write(self, key: str, content: bytes) -> None:
        """Write a file as a whole: a reader sees the old one or the new one, never a part."""
        if self.is_local:
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
            try:
                partial.write_bytes(content)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)  # of a write that failed
            return

        def whole() -> None:  # an S3 object appears when its upload is complete
            with self.filesystem.open_output_stream(self.path(key)) as stream:
                stream.write(content)

        self._ask(whole)

    def remove(self, key: str) -> None:
        """Delete a file. Does nothing where there is none."""
        if self.exists(key):
            self._ask(lambda: self.filesystem.delete_file(self.path(key)))

    def read_json(self, key: str) -> Any:
        """The content of a JSON file. Raises FileNotFoundError."""
        return json.loads(self.read(key))

    def write_json(self, key: str, content: Any) -> None:
        """Write a JSON file as a whole."""
        self.write(key, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file to this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as sink:
            for content in self.chunks(key):
                sink.write(content)

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        return call() if self.is_local else self.patience.ask(call, self.told)

    def _stored(self, info: fs.FileInfo) -> StoredFile:
        return StoredFile(info.path[len(self.root) + 1 :], info.size, str(info.mtime_ns))


def open_store(url: str, env: Mapping[str, str] | None = None) -> Store:
    """The store at a folder or s3://bucket/prefix. Opens no connection. Raises RefusedInputError."""
    if not url.startswith("s3://"):
        return Store(fs.LocalFileSystem(), str(Path(url).absolute()), url)
    parts = urlsplit(url)
    if not parts.netloc:
        raise RefusedInputError(f"'{url}' names no bucket; write s3://BUCKET/PREFIX")
    root = f"{parts.netloc}{parts.path}".rstrip("/")
    env = os.environ if env is None else env
    options = s3_options(url, env)
    return Store(_s3_filesystem(options, TRIES), root, url, options.get("endpoint_override", ""), patience_from(env))


def lasting_filesystem(store: Store) -> fs.FileSystem:
    """Of an opened store, for those who ask it only through pyarrow, such as Ray Train: its client goes on asking a
    store that is away for about a minute by itself.
    """
    if store.is_local:
        return store.filesystem
    return _s3_filesystem(s3_options(store.url, os.environ), LASTING_TRIES)


def _s3_filesystem(options: Mapping[str, str], tries: int) -> fs.S3FileSystem:
    limits = {"connect_timeout": CONNECT_S, "request_timeout": REQUEST_S}
    return fs.S3FileSystem(**options, **limits, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=tries))


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
