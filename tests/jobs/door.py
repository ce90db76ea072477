"""A way to a server that tests can shut, as when a store is away."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Door:
    """A way to a server that can be shut: then callers are refused, and those inside are thrown out."""

    def __init__(self, host: str, port: int) -> None:
        self._server, self._open, self._pairs = (host, port), threading.Event(), list[socket.socket]()
        self.passed_bytes, self.shuts_after = 0, float("inf")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(self.address)
        threading.Thread(target=self._take, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        self.shuts_after = float("inf")
        listener, self._listener = self._listener, None
        for end in [listener, *self._pairs] if listener else self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs.clear()

    def _take(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                inner = socket.create_connection(self._server)
                self._pairs += [caller, inner]
                for ends in ((caller, inner), (inner, caller)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
                self.passed_bytes += len(content)
                if self.passed_bytes > self.shuts_after:
                    self.shut()
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
