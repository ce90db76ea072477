"""A reverse HTTP proxy in front of the testbed's services that can be told to misbehave for the next requests.

    with FaultProxy(layout, tmp_path) as proxy:
        fault = proxy.expect(Fault("compute", "POST", r"/servers$", Cut()))
        ... a client with OS_CLIENT_CONFIG_FILE=proxy.clouds_yaml ...
        assert fault.hits == 1

Everything else is passed on as it is. `proxy.seen` tells what was asked.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import requests
import yaml

from testbeds.openstack.layout import ADMIN_CLOUD, CLOUD, ENDPOINTS, TOKEN_CACHE_S, Layout

UPSTREAM_LIMIT_S = 300
_HOP_BY_HOP = {
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


@dataclass(frozen=True)
class RevokeToken:
    """The token that the request carries is revoked in keystone, in earnest, before the request is passed on: a 401."""

    admin_token: Callable[[], str]

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer:
        token = request.headers["x-auth-token"]
        headers = {"X-Auth-Token": self.admin_token(), "X-Subject-Token": token}
        requests.delete(f"{ENDPOINTS['identity']}/auth/tokens", headers=headers, timeout=30).raise_for_status()
        time.sleep(TOKEN_CACHE_S + 1)  # so long a service may believe in it
        return pass_on()


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


class FaultProxy:
    """One listener a service on 127.0.0.1, and a clouds.yaml in `folder` that leads there. A context manager."""

    def __init__(
        self, layout: Layout, folder: Path, services: tuple[str, ...] = ("compute", "network", "identity")
    ) -> None:
        self.seen: list[tuple[Request, int | None]] = []
        """Requests and the status that the client got (None: the connection was closed)."""
        self._layout = layout
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._servers = {service: _listen(self, service) for service in services}
        self.clouds_yaml = self._write_clouds(folder)

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

    def url(self, service: str) -> str:
        """Where the service is to be asked."""
        port = self._servers[service].server_address[1]
        return f"http://127.0.0.1:{port}{urlsplit(ENDPOINTS[service]).path}"

    def revoke_token(self) -> RevokeToken:
        """The effect RevokeToken with the testbed's administrator."""
        return RevokeToken(lambda: _admin_token(self._layout))

    def handle(self, request: Request) -> Answer | None:
        """Answers one request."""
        with self._lock:
            fault = next((fault for fault in self._faults if fault.matches(request)), None)
            if fault:
                fault.hits += 1
        answer = fault.effect(request, lambda: _ask(request)) if fault else _ask(request)
        with self._lock:
            self.seen.append((request, answer.status if answer else None))
        return answer

    def _write_clouds(self, folder: Path) -> Path:
        clouds = yaml.safe_load(self._layout.clouds_yaml.read_text())
        entry = clouds["clouds"][CLOUD]
        for service in self._servers:
            entry[f"{service}_endpoint_override"] = self.url(service)
        if "identity" in self._servers:
            entry["auth"]["auth_url"] = self.url("identity")
        path = folder / "clouds-through-proxy.yaml"
        path.write_text(yaml.safe_dump(clouds))
        return path


def _ask(request: Request) -> Answer:
    """The real service's answer; 502 when it does not answer at all."""
    upstream = urlsplit(ENDPOINTS[request.service])
    connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=UPSTREAM_LIMIT_S)
    try:
        # The Host header stays the client's: links in the answers then lead through the proxy again.
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        connection.request(request.method, request.path, body=request.body or None, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return Answer(
            response.status, [pair for pair in response.getheaders() if pair[0].lower() not in _HOP_BY_HOP], body
        )
    except (OSError, http.client.HTTPException) as trouble:
        return Answer(
            502, [("Content-Type", "text/plain")], f"the fault proxy cannot reach {request.service}: {trouble}".encode()
        )
    finally:
        connection.close()


def _admin_token(layout: Layout) -> str:
    auth = yaml.safe_load(layout.clouds_yaml.read_text())["clouds"][ADMIN_CLOUD]["auth"]
    domain = {"name": auth["user_domain_name"]}
    user = {"name": auth["username"], "password": auth["password"], "domain": domain}
    scope = {"project": {"name": auth["project_name"], "domain": {"name": auth["project_domain_name"]}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    answer = requests.post(f"{ENDPOINTS['identity']}/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    return answer.headers["X-Subject-Token"]


def _listen(proxy: FaultProxy, service: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = proxy.handle(Request(service, self.command, self.path, headers, body))
            self.close_connection = True
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
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

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
