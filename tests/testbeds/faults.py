"""A reverse HTTP proxy on 127.0.0.1 that can be told to misbehave for the next requests: what all testbeds share of it.

    fault = proxy.expect(Fault("compute", "POST", r"/servers$", Cut()))
    ... a client that asks through the proxy ...
    assert fault.hits == 1

Everything else is passed on as it is. `proxy.seen` tells what was asked.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, Self

UPSTREAM_LIMIT_S = 300
HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
}


@dataclass(frozen=True)
class Request:
    """One request as it came in. `path` begins after the proxy's address, with the query."""

    service: str
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What the client gets; None instead of one closes the connection without a word."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Relay:
    """A real answer that is passed on as it comes, for as long as it takes: `run` gets the client's connection."""

    status: int
    run: Callable[[socket.socket], None]


class Effect(Protocol):
    """What happens to a request. `pass_on` asks the real service."""

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer | None:
        """The answer for the client, or None."""


@dataclass(frozen=True)
class Status:
    """An answer of the proxy's own; the service never hears of the request."""

    status: int = 503

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer:
        body = b'{"error": {"code": %d, "message": "the fault proxy says so"}}' % self.status
        return Answer(self.status, [("Content-Type", "application/json")], body)


@dataclass(frozen=True)
class Hang:
    """No answer for `seconds`, then the real one."""

    seconds: float

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer:
        time.sleep(self.seconds)
        return pass_on()


@dataclass(frozen=True)
class Cut:
    """The service does what was asked; the client never hears the answer. `then` runs between: kill the client, say."""

    then: Callable[[Answer], None] | None = None

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> None:
        answer = pass_on()
        if self.then:
            self.then(answer)


@dataclass
class Fault:
    """An effect for the next `times` requests to `service` whose whole method and part of whose path match."""

    service: str
    method: str
    path: str
    effect: Effect
    times: int = 1
    hits: int = 0

    def matches(self, request: Request) -> bool:
        """Whether it is this one's turn."""
        same = self.service == request.service and re.fullmatch(self.method, request.method) is not None
        return same and self.hits < self.times and re.search(self.path, request.path) is not None


class Proxy:
    """One listener a service. A context manager. A subclass says how the real service is asked."""

    def __init__(self, services: tuple[str, ...], tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[tuple[Request, int | None]] = []
        """Requests and the status that the client got (None: the connection was closed)."""
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._servers = {service: _listen(self, service, tls) for service in services}

    def __enter__(self) -> Self:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def expect(self, fault: Fault) -> Fault:
        """Arms a fault; the first of those armed that matches a request takes it."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Disarms all faults."""
        with self._lock:
            self._faults.clear()

    def handle(self, request: Request) -> Answer | Relay | None:
        """Answers one request."""
        with self._lock:
            fault = next((fault for fault in self._faults if fault.matches(request)), None)
            if fault:
                fault.hits += 1
        answer = fault.effect(request, lambda: self.ask(request)) if fault else self.relay(request)
        with self._lock:
            self.seen.append((request, answer.status if answer else None))
        return answer

    def ask(self, request: Request) -> Answer:
        """The real service's whole answer; 502 when it does not answer at all."""
        raise NotImplementedError

    def relay(self, request: Request) -> Answer | Relay:
        """What a request gets that meets no fault."""
        return self.ask(request)


def unreachable(service: str, trouble: Exception) -> Answer:
    """502: the proxy has nobody to ask."""
    return Answer(502, [("Content-Type", "text/plain")], f"the fault proxy cannot reach {service}: {trouble}".encode())


def _listen(proxy: Proxy, service: str, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = proxy.handle(Request(service, self.command, self.path, headers, body))
            self.close_connection = True
            try:
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif isinstance(answer, Relay):
                    answer.run(self.connection)
                else:
                    self._send(answer)
            except OSError:  # the client had enough meanwhile
                return

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815  the names that http.server looks for

        def _send(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the interface's name
            """Says nothing: `seen` tells."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        # The handshake is the handler's thread's: a client that never finishes its own holds up nobody.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server
