"""The small API server of `http_kubernetes`, with exec and port-forward: a command of a pod runs on this machine, a
port of a pod is one of this machine's. Both speak as kubelet does: protocol v4.channel.k8s.io, a channel in front of
each message, a close frame when all is over.

    with WsKubernetes().serving() as server:
        server.doors[8265] = port_of_this_machine      # what port 8265 of every pod leads to
        server.commands = lambda words: (0, b"out", b"err")   # instead of running them
        server.executed                                # commands, in order
        server.tear()                                  # breaks all websockets that are open, without a close frame
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websocket import ABNF
from websocket._abnf import frame_buffer

from unit.http_kubernetes import TOKEN, HttpKubernetes, _Handler

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Ended = tuple[int, bytes, bytes]


@dataclass
class WsKubernetes(HttpKubernetes):
    """See the module."""

    doors: dict[int, int] = field(default_factory=dict)
    commands: Callable[[list[str]], Ended] | None = None
    executed: list[list[str]] = field(default_factory=list)
    cuts_after: int | None = None
    """Exec: bytes of stdout after which the connection breaks."""
    status: dict[str, Any] | None = None
    """Exec: what is told at the end instead of the command's exit status."""
    pings: int = 0
    """Pings that came in."""
    refuses_websockets: list[int] = field(default_factory=list)
    """Statuses with which the next websockets are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.open: set[socket.socket] = set()

    def tear(self) -> None:
        for end in list(self.open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def serving(self) -> Iterator[WsKubernetes]:
        handler = type("Handler", (_WsHandler,), {"cluster": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=lambda: server.serve_forever(0.02))
            thread.start()
            try:
                yield self
            finally:
                self.tear()
                server.shutdown()
                thread.join()


class _Socket:
    """The server's end of a websocket."""

    def __init__(self, handler: _WsHandler) -> None:
        self._socket, self._file, self._lock = handler.connection, handler.rfile, threading.Lock()
        self._frames = frame_buffer(self._read, True)

    def _read(self, size: int) -> bytes:
        data = self._file.read1(size)
        if not data:
            raise ConnectionResetError
        return data

    def take(self) -> Any:
        return self._frames.recv_frame()

    def tell(self, channel: int, data: bytes) -> None:
        self.put(ABNF.OPCODE_BINARY, bytes([channel]) + data)

    def put(self, opcode: int, data: bytes) -> None:
        with self._lock:
            self._socket.sendall(ABNF(1, 0, 0, 0, opcode, 0, data).format())


class _WsHandler(_Handler):
    cluster: WsKubernetes

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if self.headers.get("Upgrade", "").lower() != "websocket":
            self._serve()
            return
        self.close_connection = True
        parts = urlsplit(self.path)
        pod, part = parts.path.split("/")[-2:]
        there = self.cluster
        there.asked.append(f"GET {parts.path}")
        refused = there.refuses_websockets.pop(0) if there.refuses_websockets else 0
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Unauthorized")
        elif refused:
            self._refuse(refused, "out of order")
        elif ("create", f"pods/{part}") in there.forbidden:
            self._refuse(403, f'pods "{pod}" is forbidden: User "anna" cannot create resource "pods/{part}"')
        elif there.get("pods", pod, parts.path.split("/")[4]) is None:
            self._refuse(404, f'pods "{pod}" not found')
        else:
            self._upgrade()
            there.open.add(self.connection)
            with suppress(OSError):
                query = parse_qs(parts.query)
                self._forward(query) if part == "portforward" else self._exec(query)
            there.open.discard(self.connection)

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"kind": "Status", "message": message, "code": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _upgrade(self) -> None:
        assert "v4.channel.k8s.io" in self.headers["sec-websocket-protocol"]
        accept = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + MAGIC).digest())
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept.decode()),
        ):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.wfile.flush()

    def _forward(self, query: dict[str, list[str]]) -> None:
        far, number = _Socket(self), int(query["ports"][0])
        for channel in (0, 1):
            far.tell(channel, struct.pack("<H", number))
        try:
            inner = socket.create_connection(("127.0.0.1", self.cluster.doors[number]))
        except (KeyError, OSError):
            far.tell(1, f"error forwarding port {number}: connection refused".encode())
            far.put(ABNF.OPCODE_CLOSE, struct.pack("!H", 1000))
            return
        with inner:
            up = threading.Thread(target=self._upwards, args=(far, inner), daemon=True)
            up.start()
            while data := _received(inner):
                far.tell(0, data)
            far.put(ABNF.OPCODE_CLOSE, struct.pack("!H", 1000))

    def _upwards(self, far: _Socket, inner: socket.socket) -> None:
        with suppress(OSError):
            while True:
                frame = far.take()
                if frame.opcode == ABNF.OPCODE_PING:
                    self.cluster.pings += 1
                    far.put(ABNF.OPCODE_PONG, frame.data)
                elif frame.opcode == ABNF.OPCODE_CLOSE:
                    break
                elif frame.data[:1] == b"\0":
                    inner.sendall(frame.data[1:])
        with suppress(OSError):
            inner.shutdown(socket.SHUT_RDWR)

    def _exec(self, query: dict[str, list[str]]) -> None:
        far, words = _Socket(self), query["command"]
        self.cluster.executed.append(words)
        if self.cluster.commands:
            code, out, err = self.cluster.commands(words)
        else:
            done = subprocess.run(words, capture_output=True, check=False)
            code, out, err = done.returncode, done.stdout, done.stderr
        cut = self.cluster.cuts_after
        for start in range(0, len(out[:cut]), 32768):
            far.tell(1, out[:cut][start : start + 32768])
        if cut is not None and cut < len(out):
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if err:
            far.tell(2, err)
        status: dict[str, Any] = {"status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        far.tell(3, json.dumps(self.cluster.status or status).encode())
        far.put(ABNF.OPCODE_CLOSE, struct.pack("!H", 1000))


def _received(inner: socket.socket) -> bytes:
    try:
        return inner.recv(65536)
    except OSError:
        return b""
