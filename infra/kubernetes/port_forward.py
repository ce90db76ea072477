"""Ports of this machine's loopback that lead to ports of one pod, through the API server."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from kubernetes.client.exceptions import ApiException
from websocket import ABNF, WebSocket, WebSocketException

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Report, Warned, ignore
from dhctl.infra.kubernetes.channels import OPEN_S, dial
from dhctl.infra.kubernetes.client import NO_SERVER, Cluster, ClusterApiError, api_errors, patiently, reason_of

LOOPBACK = "127.0.0.1"
FIRST_S = 30.0
"""How long a server in trouble is asked at first."""

PIECE_BYTES = 65536
WAITING_BYTES = 4 * PIECE_BYTES
"""What may wait in one direction before no more is read for it."""

PING_EVERY_S = 20.0
"""Load balancers cut connections that are silent."""

ANSWER_S = 5.0
"""How long the answer to a client that ended its side may pause: port-forward cannot pass on the end of one side."""

DATA, ERROR = 0, 1
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@contextmanager
def open_forward(
    cluster: Cluster, namespace: str, pod: str, ports: Mapping[str, int], report: Report = ignore
) -> Iterator[dict[str, int]]:
    """While inside, a port of this machine's loopback for each name leads to that port as the pod's loopback has it.

    Each connection has a websocket of its own, so one that breaks takes no other with it. Whether something listens in
    the pod is not looked at: where nothing does, connections are reset. `report` is told when the API server takes no
    more connections. All threads and sockets end with the block.
    Raises ClusterError when the API server does not let this caller in, or the pod does not run.
    """
    with ExitStack() as stack:
        listeners = {stack.enter_context(_listener()): port for port in ports.values()}
        _require_way(cluster, namespace, pod, next(iter(ports.values())))
        forward = _Forward(cluster, _path(namespace, pod), listeners, report)
        forward.start()
        stack.callback(forward.end)
        yield dict(zip(ports, (listener.getsockname()[1] for listener in listeners), strict=True))


def _path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"


def _listener() -> socket.socket:
    return socket.create_server((LOOPBACK, 0), backlog=128)


def _require_way(cluster: Cluster, namespace: str, pod: str, port: int) -> None:
    try:
        with api_errors(f"reach pod {pod} in namespace {namespace}"):
            patiently(lambda: dial(cluster, _path(namespace, pod), [("ports", str(port))]), FIRST_S).shutdown()
    except ClusterApiError as error:
        raise ClusterError(error.what, error.next_step) from error


class _Forward:
    """The listeners, and the connections that came in through them."""

    def __init__(self, cluster: Cluster, path: str, listeners: Mapping[socket.socket, int], report: Report) -> None:
        self._cluster, self._path, self._report = cluster, path, report
        self._listeners = {listener.fileno(): (listener, port) for listener, port in listeners.items()}
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._told = ""
        self._wake, self._ending = os.pipe()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="port-forward")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Nothing comes in any more, and what is in ends."""
        os.write(self._ending, b"x")
        self._thread.join()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.end()
        until = time.monotonic() + OPEN_S + 5
        for connection in connections:
            connection.join(max(until - time.monotonic(), 0))
        os.close(self._wake)
        os.close(self._ending)

    def _accept(self) -> None:
        poll = select.poll()
        for handle in (self._wake, *self._listeners):
            poll.register(handle, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._wake:
                    return
                listener, port = self._listeners[handle]
                try:
                    local, _ = listener.accept()
                except OSError:  # it left again; or no more files can be opened, and later one can
                    time.sleep(0.05)
                    continue
                connection = _Connection(self, local, port)
                with self._lock:
                    self._connections.add(connection)
                connection.start()

    def dial(self, port: int) -> WebSocket | None:
        """None where the API server does not let us; told once."""
        try:
            websocket = dial(self._cluster, self._path, [("ports", str(port))])
        except (ApiException, *NO_SERVER) as error:
            self._tell(f"the API server does not forward to the cluster: {reason_of(error)}")
            return None
        self._tell("")
        return websocket

    def _tell(self, text: str) -> None:
        with self._lock:
            if text and text != self._told:
                self._report(Warned(text))
            self._told = text

    def leave(self, connection: _Connection) -> None:
        """Called by a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)


class _Connection(threading.Thread):
    """One client's connection. One thread moves both directions: a TLS socket must not be used by two."""

    def __init__(self, forward: _Forward, local: socket.socket, port: int) -> None:
        super().__init__(daemon=True, name=f"port-forward-{port}")
        self._forward, self._local, self._port = forward, local, port

    def end(self) -> None:
        """From another thread."""
        with suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            whole = self._carry()
            if not whole:
                reset = struct.pack("ii", 1, 0)  # so that the client does not take it for the end of an answer
                with suppress(OSError):
                    self._local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        finally:
            self._local.close()
            self._forward.leave(self)

    def _carry(self) -> bool:
        websocket = self._forward.dial(self._port)
        if websocket is None:
            return False
        try:
            return _Pump(self._local, websocket).run()
        except (OSError, WebSocketException):  # either end is gone
            return False
        finally:
            websocket.shutdown()


class _Pump:
    """Bytes between a client's socket and the data channel of a websocket."""

    def __init__(self, local: socket.socket, websocket: WebSocket) -> None:
        self._local, self._websocket = local, websocket
        self._far = _socket_of(websocket)
        self._up, self._down = bytearray(), bytearray()
        self._channel = DATA
        self._greeted: set[int] = set()
        self._far_ended = self._refused = False
        self._answer_until = 0.0
        """When the client ended its side: until when its answer may pause."""
        self._local.setblocking(False)
        self._far.setblocking(False)

    def run(self) -> bool:
        """Until one side ends; whether all that the pod sent was delivered. Raises OSError, WebSocketException."""
        ping_at = time.monotonic() + PING_EVERY_S
        while not self._refused and (self._down or not self._far_ended):
            now = time.monotonic()
            if self._answer_until and now > self._answer_until:
                return True
            if now >= ping_at:
                self._up += ABNF.create_frame(b"", ABNF.OPCODE_PING).format()
                ping_at = now + PING_EVERY_S
            local, far = self._wait(min(ping_at, self._answer_until or ping_at) - now)
            if local & (select.POLLHUP | select.POLLERR):
                return False
            if far:
                self._read_far()
            if local & select.POLLIN:
                self._read_local()
            self._write()
        return not self._refused

    def _wait(self, seconds: float) -> tuple[int, int]:
        """What can be done with each socket, by poll's flags. A client that resets is always seen."""
        reads_far = not self._far_ended and len(self._down) < WAITING_BYTES
        reads_local = not self._answer_until and not self._far_ended and len(self._up) < WAITING_BYTES
        poll = select.poll()
        poll.register(self._local, select.POLLIN * reads_local | select.POLLOUT * bool(self._down))
        wanted = select.POLLIN * reads_far | select.POLLOUT * bool(self._up and not self._far_ended)
        if wanted:
            poll.register(self._far, wanted)
        # what TLS has decrypted already is not seen by poll
        buffered = reads_far and isinstance(self._far, ssl.SSLSocket) and self._far.pending() > 0
        ready = dict(poll.poll(0 if buffered else max(seconds, 0) * 1000))
        far = ready.get(self._far.fileno(), 0)
        readable = reads_far and (buffered or far & ~select.POLLOUT)
        return ready.get(self._local.fileno(), 0), int(bool(readable))

    def _read_local(self) -> None:
        try:
            data = self._local.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if data:
            self._up += ABNF.create_frame(bytes([DATA]) + data, ABNF.OPCODE_BINARY).format()
        else:
            self._answer_until = time.monotonic() + ANSWER_S

    def _read_far(self) -> None:
        while not self._far_ended and len(self._down) < WAITING_BYTES:
            try:
                frame = self._websocket.recv_frame()  # one that came in part is kept there
            except WAITS:
                return
            self._take(frame.opcode, frame.data)

    def _take(self, opcode: int, data: bytes) -> None:
        match opcode:
            case ABNF.OPCODE_CLOSE:
                self._far_ended = True
            case ABNF.OPCODE_PING:
                self._up += ABNF.create_frame(data, ABNF.OPCODE_PONG).format()
            case ABNF.OPCODE_BINARY | ABNF.OPCODE_TEXT if data:
                self._channel = data[0]
                self._take_message(data[1:])
            case ABNF.OPCODE_CONT:
                self._take_message(data)
            case _:  # an answer to our ping, or an empty message
                pass

    def _take_message(self, data: bytes) -> None:
        if self._channel not in self._greeted:  # each channel begins with the number of its port
            self._greeted.add(self._channel)
        elif self._channel == DATA:
            self._down += data
            if self._answer_until:
                self._answer_until = time.monotonic() + ANSWER_S
        elif data:
            self._refused = True

    def _write(self) -> None:
        if self._up and not self._far_ended:
            with suppress(*WAITS):
                del self._up[: self._far.send(memoryview(self._up)[:PIECE_BYTES].tobytes())]
        if self._down:
            with suppress(*WAITS):
                del self._down[: self._local.send(memoryview(self._down)[:PIECE_BYTES].tobytes())]


def _socket_of(websocket: WebSocket) -> socket.socket:
    if websocket.sock is None:
        raise ConnectionError("the websocket is closed")
    return websocket.sock
