"""The fault proxy (testbeds/faults.py) in front of the API server.

    with FaultProxy(layout, tmp_path) as proxy:
        fault = proxy.expect(api_fault("POST", r"/pods$", Refusal(429, "TooManyRequests", retry_after_s=1)))
        ... a client with KUBECONFIG=proxy.kubeconfig ...
        assert fault.hits == 1

Watches, logs and port forwards pass through as they come. Whoever asks the proxy is the user that it was made for.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from testbeds.faults import HOP_BY_HOP, UPSTREAM_LIMIT_S, Answer, Effect, Fault, Proxy, Relay, Request, unreachable
from testbeds.kubernetes.layout import API_ADDRESS, API_PORT, TENANT, Layout
from testbeds.kubernetes.pki import write_kubeconfig

SERVICE = "api"
_HEAD_LIMIT = 1 << 16


def api_fault(method: str, path: str, effect: Effect, times: int = 1) -> Fault:
    """A fault of the API server; `path` is searched for in the path with its query."""
    return Fault(SERVICE, method, path, effect, times)


@dataclass(frozen=True)
class Refusal:
    """An answer in the API server's own words, which never hears of the request."""

    code: int
    reason: str = ""
    retry_after_s: int | None = None

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer:
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code}
        body |= {"reason": self.reason, "message": "the fault proxy says so"}
        headers = [("Content-Type", "application/json")]
        if self.retry_after_s is not None:
            headers.append(("Retry-After", str(self.retry_after_s)))
        return Answer(self.code, headers, json.dumps(body).encode())


class FaultProxy(Proxy):
    """Listens on 127.0.0.1 with a certificate of the cluster's authority; `kubeconfig` in `folder` leads there."""

    def __init__(self, layout: Layout, folder: Path, user: str = TENANT) -> None:
        inbound = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        inbound.load_cert_chain(layout.pki / "fault-proxy.crt", layout.pki / "fault-proxy.key")
        super().__init__((SERVICE,), inbound)
        self._outbound = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self._outbound.load_cert_chain(layout.pki / f"{user}.crt", layout.pki / f"{user}.key")
        self.kubeconfig = folder / "kubeconfig-through-proxy"
        port = self._servers[SERVICE].server_address[1]
        write_kubeconfig(layout, self.kubeconfig, f"https://127.0.0.1:{port}", None)

    def ask(self, request: Request) -> Answer:
        """The API server's whole answer; 502 when it does not answer at all."""
        connection = HTTPSConnection(API_ADDRESS, API_PORT, timeout=UPSTREAM_LIMIT_S, context=self._outbound)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            connection.request(request.method, request.path, body=request.body or None, headers=headers)
            response = connection.getresponse()
            body = response.read()
            kept = [pair for pair in response.getheaders() if pair[0].lower() not in HOP_BY_HOP]
            return Answer(response.status, kept, body)
        except (OSError, HTTPException) as trouble:
            return unreachable(SERVICE, trouble)
        finally:
            connection.close()

    def relay(self, request: Request) -> Answer | Relay:
        """The API server's answer as it comes."""
        try:
            upstream = self._open()
        except OSError as trouble:
            return unreachable(SERVICE, trouble)
        try:
            upstream.sendall(_head(request) + request.body)
            begun = _closing(_read_head(upstream), "upgrade" in request.headers)
        except OSError as trouble:
            upstream.close()
            return unreachable(SERVICE, trouble)

        def run(client: socket.socket) -> None:
            with upstream:
                client.sendall(begun)
                _pump(client, upstream)

        return Relay(int(begun.split(b" ", 2)[1]), run)

    def _open(self) -> ssl.SSLSocket:
        plain = socket.create_connection((API_ADDRESS, API_PORT), timeout=UPSTREAM_LIMIT_S)
        try:
            return self._outbound.wrap_socket(plain, server_hostname=API_ADDRESS)
        except OSError:
            plain.close()
            raise


def _head(request: Request) -> bytes:
    """The request's head. Unless it asks for another protocol, the connection ends with the answer."""
    headers = dict(request.headers)
    if "upgrade" not in headers:
        headers["connection"] = "close"
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _read_head(upstream: ssl.SSLSocket) -> bytes:
    """All up to the end of the answer's head, and what came with it. Raises OSError when it does not come."""
    begun = b""
    while b"\r\n\r\n" not in begun:
        more = upstream.recv(_HEAD_LIMIT)
        if not more or len(begun) > _HEAD_LIMIT:
            raise ConnectionError("the API server closed the connection before it answered")
        begun += more
    return begun


def _closing(begun: bytes, upgraded: bool) -> bytes:
    """Says in the answer's head that the connection ends with it, where the API server did not say so."""
    head, end, rest = begun.partition(b"\r\n\r\n")
    if upgraded or b"\r\nconnection:" in head.lower():
        return begun
    return head + b"\r\nConnection: close" + end + rest


def _pump(client: socket.socket, upstream: socket.socket) -> None:
    """Both ways, until either side ends. One thread, for a TLS connection is no thing for two."""
    with selectors.DefaultSelector() as selector:
        ends = {client: upstream, upstream: client}
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        while True:
            # What TLS has read and not yet given out is not to be seen by the selector.
            waiting = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
            for end in waiting or [key.fileobj for key, _ in selector.select(UPSTREAM_LIMIT_S)]:
                assert isinstance(end, socket.socket)
                data = _take(end)
                if data == b"":
                    return
                if data:
                    ends[end].sendall(data)


def _take(end: socket.socket) -> bytes | None:
    """What is there to read: nothing (None) when it was only half a TLS record, empty at the end."""
    end.setblocking(False)
    try:
        return end.recv(1 << 16)
    except (ssl.SSLWantReadError, BlockingIOError):
        return None
    except OSError:
        return b""
    finally:
        end.settimeout(UPSTREAM_LIMIT_S)
