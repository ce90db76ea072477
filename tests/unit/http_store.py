"""A small object store over HTTP on 127.0.0.1: what boto3 asks of S3 when it lists a prefix, reads and puts a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class HttpStore:
    """Objects by `bucket/key`. `refuses`: status and code by bucket or object, one a call; the last one stays."""

    buckets: set[str] = field(default_factory=lambda: {"bucket"})
    objects: dict[str, bytes] = field(default_factory=dict)
    refuses: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Method and target of each call."""
    signed_for: set[str] = field(default_factory=set)
    """Regions in the signatures."""
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[HttpStore]:
        handler = type("Handler", (_Handler,), {"store": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=lambda: server.serve_forever(0.02))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, str]:
        """Status and XML."""
        self.asked.append(f"{method} {target}")
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        status, code = 200, ""
        whose = f"{bucket}/{key}" if f"{bucket}/{key}" in self.refuses else bucket
        if self.refuses.get(whose):
            told = self.refuses[whose]
            status, code = told.pop(0) if len(told) > 1 else told[0]
        elif bucket not in self.buckets:
            status, code = 404, "NoSuchBucket"
        if code:
            return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        if method == "PUT":
            self.objects[f"{bucket}/{key}"] = body
            return 200, ""
        if not key:
            return 200, self._listing(bucket, {name: told[0] for name, told in parse_qs(parts.query).items()})
        if f"{bucket}/{key}" in self.objects:
            return 200, self.objects[f"{bucket}/{key}"].decode()
        return 404, "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"

    def _listing(self, bucket: str, asked: dict[str, str]) -> str:
        beginning = f"{bucket}/{asked.get('prefix', '')}"
        found = [name.partition("/")[2] for name in self.objects if name.startswith(beginning)]
        found = found[: int(asked.get("max-keys", "1000"))]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            for key in found
        )
        return f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{rows}</ListBucketResult>"


class _Handler(BaseHTTPRequestHandler):
    store: HttpStore
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def _serve(self) -> None:
        scope = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
        self.store.signed_for |= set(scope[2:3])
        status, told = self.store.answer(self.command, self.path, self._body())
        content = told.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def handle_expect_100(self) -> bool:
        """boto3 waits for it before it sends a file."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _body(self) -> bytes:
        """Plain, or in chunks with a checksum after them, as boto3 sends it over TLS or not."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return raw
        content = b""
        while raw:
            size, _, raw = raw.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            if not length:
                break
            content, raw = content + raw[:length], raw[length + 2 :]
        return content

    do_GET = do_PUT = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Quiet."""
