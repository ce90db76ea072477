"""The proof that Ray refuses strangers, against doors that answer, are slow to, break, or open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from dhctl.infra import refusal
from dhctl.infra.errors import ClusterError
from dhctl.infra.ray_api import Connection
from dhctl.infra.refusal import probe_refusal, require_refusal

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "KNOCK_S", 0.4)
    monkeypatch.setattr(refusal, "PAUSE_S", 0.02)


class _Door(grpc.GenericRpcHandler):
    """Ends calls with the codes in turn, the last one for ever; None answers."""

    def __init__(self, *codes: grpc.StatusCode | None) -> None:
        self._codes, self.calls = list(codes), 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        code = self._codes[min(self.calls, len(self._codes) - 1)]
        self.calls += 1
        if code is not None:
            context.abort(code, "of this test")
        return b""


@contextmanager
def serving(door: _Door) -> Iterator[str]:
    """Its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[door])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def jobs_api(*statuses: int) -> Iterator[str]:
    """The address of an HTTP server that answers with the statuses in turn, the last one for ever; 0 breaks off."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            if status:
                self.send_response(status)
                self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Makes the connection to a cluster with these doors."""
    with ExitStack() as stack:

        def made(gcs: _Door, raylet: _Door, *statuses: int) -> Connection:
            url, *addresses = (
                stack.enter_context(jobs_api(*statuses)),
                *(stack.enter_context(serving(d)) for d in (gcs, raylet)),
            )
            return Connection(url, *addresses, token="t", head_address="127.0.0.1")

        yield made


def test_doors_that_refuse_are_told_with_what_they_said(cluster: Any) -> None:
    probes = require_refusal(cluster(_Door(UNAUTHENTICATED), _Door(UNAUTHENTICATED), 401, 403))
    assert [(p.door, p.told, p.refused) for p in probes] == [
        ("Jobs API", "401 / 403", True),
        ("GCS", "UNAUTHENTICATED / UNAUTHENTICATED", True),
        ("raylet", "UNAUTHENTICATED / UNAUTHENTICATED", True),
    ]


def test_a_busy_door_is_asked_until_it_answers(cluster: Any) -> None:
    slow = _Door(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, UNAUTHENTICATED)
    assert all(p.refused for p in require_refusal(cluster(_Door(UNAUTHENTICATED), slow, 0, 0, 401)))
    assert slow.calls == 4


@pytest.mark.parametrize(
    ("gcs", "statuses", "words"),
    [
        ([None], [401], "GCS (OK / OK)"),
        ([UNAUTHENTICATED, None], [401], "GCS (UNAUTHENTICATED / OK)"),
        ([UNAUTHENTICATED], [200], "Jobs API (200 / 200)"),
        ([UNAUTHENTICATED], [401, 200], "Jobs API (401 / 200)"),
    ],
)
def test_an_open_door_is_named(cluster: Any, gcs: list[Any], statuses: list[int], words: str) -> None:
    with pytest.raises(ClusterError) as caught:
        require_refusal(cluster(_Door(*gcs), _Door(UNAUTHENTICATED), *statuses))
    assert caught.value.what == f"Ray does not refuse callers without the token: {words}"


def test_a_door_that_never_answers_is_not_called_open(cluster: Any) -> None:
    """A listener that accepts and says nothing, and a server that is always busy."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        busy = cluster(_Door(UNAUTHENTICATED), _Door(UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE), 401)
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        connection = Connection(busy.dashboard_url, address, busy.raylet_address, token="t", head_address="127.0.0.1")
        with pytest.raises(ClusterError) as caught:
            require_refusal(connection, deadline_s=1.0)
    what = caught.value.what
    assert what.startswith(
        "whether Ray refuses callers without the token is not known after 1 s: GCS (no answer: DEADLINE_EXCEEDED"
    )
    assert "raylet (UNAUTHENTICATED / no answer: UNAVAILABLE: of this test)" in what


def test_no_door_at_all_is_no_refusal() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        connection = Connection(f"http://{nobody}", nobody, nobody, token="t", head_address="127.0.0.1")
        probes = probe_refusal(connection, deadline_s=0.5)
    assert [(p.answered, p.refused) for p in probes] == [(False, False)] * 3
