"""Port-forward against a small API server: HTTP, gRPC and raw connections, many at once; ends of each side; trouble."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, Warned
from dhctl.infra.kubernetes import port_forward
from dhctl.infra.kubernetes.client import Cluster, connect
from dhctl.infra.kubernetes.port_forward import open_forward
from dhctl.infra.kubernetes.section import KubernetesSection
from unit.ws_kubernetes import WsKubernetes

POD = "dh-aaaabbbbcc-head"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WsKubernetes]:
    with WsKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        server.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}})
        yield server


@pytest.fixture
def cluster(there: WsKubernetes) -> Cluster:
    return connect(KubernetesSection())


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """All threads and sockets of a forward end with it."""
    before = open_files()
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("port-forward")] == []
    end = time.monotonic() + 5
    while (now := open_files()) > before + 6 and time.monotonic() < end:
        time.sleep(0.05)
    assert now <= before + 6  # the API client keeps a few connections


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server in a pod: each connection is given to a function."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as door:

        def accept() -> None:
            while True:
                try:
                    inner, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(inner,), daemon=True).start()

        def handle(inner: socket.socket) -> None:
            with inner:
                try:
                    answer(inner)
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def echo(inner: socket.socket) -> None:
    while data := inner.recv(65536):
        inner.sendall(data)


def read_all(end: socket.socket) -> bytes:
    found = b""
    while data := end.recv(65536):
        found += data
    return found


class _Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_http_goes_through_many_times_at_once(there: WsKubernetes, cluster: Cluster) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as web:
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, daemon=True).start()
        there.doors[8265] = web.server_address[1]
        with open_forward(cluster, "lab", POD, {"dashboard": 8265}) as ports, ThreadPoolExecutor(20) as callers:
            url = f"http://127.0.0.1:{ports['dashboard']}"
            answers = list(callers.map(lambda n: requests.get(f"{url}/{n}", timeout=20).text, range(60)))
            assert answers == [f"/{n} 127.0.0.1:{ports['dashboard']}" for n in range(60)]
            with requests.Session() as kept:
                assert all(kept.get(f"{url}/again", timeout=20).ok for _ in range(20))
        web.shutdown()


def test_grpc_goes_through_and_streams(there: WsKubernetes, cluster: Cluster) -> None:
    def upwards(requests_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for told in requests_:
            yield told.upper()

    handlers = {"Talk": grpc.stream_stream_rpc_method_handler(upwards)}
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        there.doors[6379] = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with (
            open_forward(cluster, "lab", POD, {"gcs": 6379}) as ports,
            grpc.insecure_channel(f"127.0.0.1:{ports['gcs']}", options=[("grpc.enable_http_proxy", 0)]) as channel,
        ):
            talk: Any = channel.stream_stream("/test.Echo/Talk")
            told = [f"word {n} ".encode() * 2000 for n in range(100)]
            assert list(talk(iter(told), timeout=30)) == [word.upper() for word in told]
        server.stop(None).wait(5)


def test_large_streams_in_both_directions_do_not_block_each_other(there: WsKubernetes, cluster: Cluster) -> None:
    content = os.urandom(8 * 2**20)
    with serving(echo) as door:
        there.doors[1] = door
        with open_forward(cluster, "lab", POD, {"echo": 1}) as ports:
            with socket.create_connection(("127.0.0.1", ports["echo"])) as end:
                sender = threading.Thread(target=end.sendall, args=(content,))
                sender.start()
                time.sleep(0.3)  # all buffers on the way fill
                found = bytearray()
                while len(found) < len(content):
                    found += end.recv(65536)
                sender.join()
            assert bytes(found) == content


def test_listeners_are_on_loopback_and_one_for_each_name(there: WsKubernetes, cluster: Cluster) -> None:
    with serving(lambda inner: inner.sendall(b"a")) as one, serving(lambda inner: inner.sendall(b"b")) as other:
        there.doors |= {1: one, 2: other}
        with open_forward(cluster, "lab", POD, {"one": 1, "other": 2}) as ports:
            assert list(ports) == ["one", "other"]
            for name, answer in (("one", b"a"), ("other", b"b")):
                with socket.create_connection(("127.0.0.1", ports[name])) as end:
                    assert read_all(end) == answer
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", ports["one"]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports["one"]))


def test_the_pods_end_of_a_connection_is_the_clients_and_all_that_was_sent_arrives(
    there: WsKubernetes, cluster: Cluster
) -> None:
    content = os.urandom(3 * 2**20)
    with serving(lambda inner: inner.sendall(content)) as door:
        there.doors[1] = door
        with (
            open_forward(cluster, "lab", POD, {"x": 1}) as ports,
            socket.create_connection(("127.0.0.1", ports["x"])) as end,
        ):
            time.sleep(0.3)  # a client that reads late
            assert read_all(end) == content


def test_a_client_that_ends_its_side_still_gets_its_answer(there: WsKubernetes, cluster: Cluster) -> None:
    def answer(inner: socket.socket) -> None:
        if inner.recv(100) == b"question":
            time.sleep(0.3)
            inner.sendall(b"answer")

    with serving(answer) as door:
        there.doors[1] = door
        with (
            open_forward(cluster, "lab", POD, {"x": 1}) as ports,
            socket.create_connection(("127.0.0.1", ports["x"])) as end,
        ):
            end.sendall(b"question")
            end.shutdown(socket.SHUT_WR)
            assert read_all(end) == b"answer"


def test_a_client_that_leaves_ends_the_pods_connection(
    there: WsKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr(port_forward, "ANSWER_S", 0.2)
    ended = threading.Event()

    def answer(inner: socket.socket) -> None:
        echo(inner)
        ended.set()

    with serving(answer) as door:
        there.doors[1] = door
        with open_forward(cluster, "lab", POD, {"x": 1}) as ports:
            ended.clear()
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                end.sendall(b"x")
                assert end.recv(1) == b"x"
            assert ended.wait(5)
            ended.clear()
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:  # one that is reset
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.sendall(b"x")
                assert end.recv(1) == b"x"
            assert ended.wait(5)


def test_nobody_behind_a_port_resets_the_connection_and_the_next_one_may_work(
    there: WsKubernetes, cluster: Cluster, told: list[Event]
) -> None:
    with open_forward(cluster, "lab", POD, {"x": 1}, told.append) as ports:
        with socket.create_connection(("127.0.0.1", ports["x"])) as end, pytest.raises(ConnectionResetError):
            read_all(end)
        with serving(lambda inner: inner.sendall(b"here")) as door:
            there.doors[1] = door
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                assert read_all(end) == b"here"
    assert told == []


def test_a_websocket_that_breaks_resets_its_connection_and_no_other(there: WsKubernetes, cluster: Cluster) -> None:
    with serving(echo) as door:
        there.doors[1] = door
        with open_forward(cluster, "lab", POD, {"x": 1}) as ports:
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                end.sendall(b"x")
                assert end.recv(1) == b"x"
                there.tear()
                with pytest.raises(ConnectionResetError):
                    read_all(end)
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                end.sendall(b"y")
                assert end.recv(1) == b"y"


def test_an_api_server_in_trouble_is_told_once(there: WsKubernetes, cluster: Cluster, told: list[Event]) -> None:
    with serving(echo) as door:
        there.doors[1] = door
        with open_forward(cluster, "lab", POD, {"x": 1}, told.append) as ports:
            there.refuses_websockets += [503, 503]
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", ports["x"])) as end, pytest.raises(ConnectionResetError):
                    read_all(end)
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                end.sendall(b"y")
                assert end.recv(1) == b"y"
    assert told == [Warned("the API server does not forward to the cluster: out of order (HTTP 503)")]


def test_a_silent_connection_is_kept_by_pings(
    there: WsKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr(port_forward, "PING_EVERY_S", 0.1)
    with serving(echo) as door:
        there.doors[1] = door
        with (
            open_forward(cluster, "lab", POD, {"x": 1}) as ports,
            socket.create_connection(("127.0.0.1", ports["x"])) as end,
        ):
            eventually(lambda: there.pings > 3)
            end.sendall(b"z")
            assert end.recv(1) == b"z"


def test_a_block_that_ends_ends_what_is_open(there: WsKubernetes, cluster: Cluster) -> None:
    with serving(echo) as door:
        there.doors[1] = door
        ends = []
        started = time.monotonic()
        with open_forward(cluster, "lab", POD, {"x": 1}) as ports:
            for _ in range(10):
                ends.append(socket.create_connection(("127.0.0.1", ports["x"])))
                ends[-1].sendall(b"x")
                assert ends[-1].recv(1) == b"x"
        assert time.monotonic() - started < 5
        for end in ends:
            with end:
                try:
                    assert end.recv(1) == b""
                except ConnectionResetError:
                    continue


def test_a_server_in_trouble_at_first_is_asked_again(there: WsKubernetes, cluster: Cluster) -> None:
    there.refuses_websockets += [503, 429]
    with open_forward(cluster, "lab", POD, {"x": 1}) as ports:
        assert ports["x"]


def test_what_is_not_possible_is_a_sentence(there: WsKubernetes, cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r'cannot reach pod gone in namespace lab: pods "gone" not found'):  # noqa: SIM117
        with open_forward(cluster, "lab", "gone", {"x": 1}):
            pass
    there.forbidden.add(("create", "pods/portforward"))
    with pytest.raises(ClusterError, match=r"cannot create resource .pods/portforward.* \(HTTP 403\); ask the namesp"):  # noqa: SIM117
        with open_forward(cluster, "lab", POD, {"x": 1}):
            pass


def test_nobody_at_the_servers_address_is_a_sentence(
    there: WsKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forward, "FIRST_S", 0.1)
    there.url = "http://127.0.0.1:1"
    there.log_in(monkeypatch, tmp_path)
    with pytest.raises(ClusterError, match=r"cannot reach pod .*refused.*can it be reached from here"):  # noqa: SIM117
        with open_forward(connect(KubernetesSection()), "lab", POD, {"x": 1}):
            pass


def test_tls_is_spoken_and_the_servers_certificate_is_looked_at(
    there: WsKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(4 * 2**20)
    monkeypatch.setattr(port_forward, "FIRST_S", 0.1)
    with serving(echo) as door, tls_door(tmp_path, there.url) as url:
        there.doors[1] = door
        there.url = url
        kubeconfig = there.log_in(monkeypatch, tmp_path)
        with pytest.raises(ClusterError, match=r"CERTIFICATE_VERIFY_FAILED"):  # noqa: SIM117
            with open_forward(connect(KubernetesSection()), "lab", POD, {"x": 1}):
                pass
        body = json.loads(kubeconfig.read_text())
        body["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "cert.pem")
        kubeconfig.write_text(json.dumps(body))
        with open_forward(connect(KubernetesSection()), "lab", POD, {"x": 1}) as ports:
            with socket.create_connection(("127.0.0.1", ports["x"])) as end:
                sender = threading.Thread(target=end.sendall, args=(content,))
                sender.start()
                found = bytearray()
                while len(found) < len(content):
                    found += end.recv(65536)
                sender.join()
            assert bytes(found) == content


def own_tls(folder: Path) -> ssl.SSLContext:
    """A server's, with a certificate of its own (cert.pem)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = made.not_valid_after(now + timedelta(hours=1)).add_extension(address, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    form = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(form))
    private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@contextmanager
def tls_door(folder: Path, url: str) -> Iterator[str]:
    """TLS in front of a server on this machine."""
    context = own_tls(folder)
    loop, writers = asyncio.new_event_loop(), list[asyncio.StreamWriter]()

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writers.extend((writer, inner_writer))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(carry, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in the loop's next rounds

    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
