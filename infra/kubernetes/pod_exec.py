"""Commands in a pod's container, through the API server."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from websocket import ABNF, WebSocket, WebSocketException, WebSocketTimeoutException

from dhctl.infra.errors import ClusterError
from dhctl.infra.kubernetes.channels import dial
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, api_errors
from dhctl.infra.kubernetes.discovery import PODS
from dhctl.infra.kubernetes.pod_objects import CONTAINER

STDOUT, STDERR, STATUS = 1, 2, 3
WORDS_BYTES = 65536
"""What is kept of a command's messages."""

LIMIT_BYTES = 2**20
PIECE_S = 5.0


class UnreachablePodError(ClusterError):
    """No command can be run in the pod."""


@dataclass(frozen=True)
class PodEndpoint:
    """A pod of the run, and the interpreter in its image."""

    cluster: Cluster
    namespace: str
    name: str
    python: str = "python"


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit status, what it wrote to stderr, and how many bytes to stdout."""

    returncode: int
    words: str
    size_bytes: int


def run_in_pod(
    pod: PodEndpoint, command: Sequence[str], into: IO[bytes], timeout_s: float = 60.0, limit_bytes: int = LIMIT_BYTES
) -> Done:
    """Runs a command in the pod's main container; what it writes to stdout goes into a file.

    Raises UnreachablePodError, and ClusterError when it does not end in time, or writes more than `limit_bytes`.
    """
    until = time.monotonic() + timeout_s
    path = PODS.path(pod.namespace, pod.name)
    try:
        with api_errors(f"run a command in pod {pod.name}"):
            container = main_container(pod.cluster.call("GET", path))
            query = [("container", container), ("stdout", "true"), ("stderr", "true")]
            query += [("command", word) for word in command]
            websocket = dial(pod.cluster, f"{path}/exec", query)
    except ClusterApiError as error:
        raise UnreachablePodError(error.what, error.next_step) from error
    try:
        return _Reader(websocket, pod.name, into, limit_bytes).read(until)
    except (OSError, WebSocketException) as error:
        raise UnreachablePodError(f"the connection to pod {pod.name} broke ({error})", "try again") from error
    finally:
        websocket.shutdown()


def require(pod: PodEndpoint, done: Done, doing: str) -> None:
    """Raises ClusterError, with the command's own words, when it did not end well."""
    if done.returncode:
        words = " ".join(done.words.split())[-300:] or f"exit status {done.returncode}"
        raise ClusterError(f"{doing} in pod {pod.name} failed ({words})")


def main_container(pod: dict[str, Any]) -> str:
    """Meshes add containers to a pod, also before its own."""
    names = [str(container["name"]) for container in pod["spec"]["containers"]]
    return CONTAINER if CONTAINER in names else names[0]


class _Reader:
    """One command's channels."""

    def __init__(self, websocket: WebSocket, pod: str, into: IO[bytes], limit_bytes: int) -> None:
        self._websocket, self._pod, self._into, self._limit_bytes = websocket, pod, into, limit_bytes
        self._words, self._status, self._size = bytearray(), bytearray(), 0
        websocket.settimeout(PIECE_S)

    def read(self, until: float) -> Done:
        while True:
            if time.monotonic() > until:
                raise ClusterError(f"a command in pod {self._pod} does not end", "try again later")
            try:
                opcode, frame = self._websocket.recv_data_frame(True)
            except WebSocketTimeoutException:
                continue
            if opcode == ABNF.OPCODE_CLOSE:
                return Done(self._returncode(), self._words.decode(errors="replace").strip(), self._size)
            if opcode in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data:
                self._take(frame.data[0], frame.data[1:])

    def _take(self, channel: int, data: bytes) -> None:
        match channel:
            case _ if channel == STDOUT:
                self._size += len(data)
                if self._size > self._limit_bytes:
                    raise ClusterError(f"pod {self._pod} sends more than {self._limit_bytes} bytes")
                self._into.write(data)
            case _ if channel == STDERR:
                self._words += data[: max(WORDS_BYTES - len(self._words), 0)]
            case _ if channel == STATUS:
                self._status += data[: max(WORDS_BYTES - len(self._status), 0)]

    def _returncode(self) -> int:
        """As the API server tells it when all is over; without that the connection broke."""
        try:
            told = json.loads(self._status)
            if told["status"] == "Success":
                return 0
            causes = told.get("details", {}).get("causes") or ()
            code = next((int(c["message"]) for c in causes if c.get("reason") == "ExitCode"), None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConnectionError("the command's end was not told") from error
        if code is None:
            words = str(told.get("message", "no reason given"))[:400]
            raise UnreachablePodError(f"a command cannot be run in pod {self._pod}: {words}")
        return code
