"""Ports of this machine that lead to a node through one ssh, which is opened again when its connection breaks."""

from __future__ import annotations

import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import IO

from dhctl.infra.errors import DhctlError
from dhctl.infra.events import Noted, Report, Warned, ignore
from dhctl.infra.ssh_client import (
    HostKeyDiffersError,
    LoginRefusedError,
    SshEndpoint,
    UnreachableError,
    arguments,
    destination,
    end,
    failure,
    logging_to,
    spawn,
    text_of,
)

LOOPBACK = "127.0.0.1"
OPEN_S = 60.0
OUTAGE_S = 30 * 60.0
"""How long a broken tunnel is tried again. A job goes on without its client; its outcome is then only seen later."""
LONGEST_PAUSE_S = 30.0
LOOK_EVERY_S = 0.2
PORT_TRIES = 3
READY = "dhctl-tunnel-ready"


@contextmanager
def open_tunnel(
    endpoint: SshEndpoint,
    forwards: Mapping[str, tuple[str, int]],
    report: Report = ignore,
    timeout_s: float = OPEN_S,
) -> Iterator[dict[str, int]]:
    """While inside, a port on this machine's loopback for each name leads to its (host, port) as the node sees it.

    All of them take connections when the block is entered, and are held by our own ssh then. Whether something
    listens at the other end is not looked at. The ssh ends with the block, and with this process, however it ends.
    When the connection breaks (`report` is told) the same ports refuse connections until ssh has it again.
    Raises what `dhctl.infra.ssh.run` raises when the tunnel does not open within `timeout_s`.
    """
    tunnel = _Tunnel(endpoint, forwards, report, timeout_s)
    tunnel.thread.start()
    try:
        yield tunnel.opened.result(timeout_s + 30)
    finally:
        tunnel.closing.set()
        tunnel.thread.join(30)


class _Tunnel:
    """One thread starts ssh, watches it and ends it: ssh dies with the thread that started it (`spawn`)."""

    def __init__(
        self, endpoint: SshEndpoint, forwards: Mapping[str, tuple[str, int]], report: Report, timeout_s: float
    ) -> None:
        self.endpoint, self.forwards, self.report = endpoint, dict(forwards), report
        self.until = time.monotonic() + timeout_s
        self.opened: Future[dict[str, int]] = Future()
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._keep, daemon=True, name="ssh-tunnel")

    def _keep(self) -> None:
        try:
            ports, process = self._open()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.opened.set_exception(error)
            return
        self.opened.set_result(ports)
        try:
            while not self.closing.wait(LOOK_EVERY_S):
                if process.poll() is not None:
                    end(process)
                    again = self._open_again(ports)
                    if again is None:
                        return
                    process = again
        finally:
            end(process)

    def _open(self) -> tuple[dict[str, int], subprocess.Popen[bytes]]:
        """Free ports can be taken by another process before ssh has them: then others are tried."""
        for last in (*[False] * (PORT_TRIES - 1), True):
            ports = dict(zip(self.forwards, free_ports(len(self.forwards)), strict=True))
            try:
                return ports, self._start(ports, self.until)
            except UnreachableError:
                if last or not taken(ports.values()):
                    raise
        raise AssertionError("the last try returns or raises")

    def _open_again(self, ports: dict[str, int]) -> subprocess.Popen[bytes] | None:
        """None when the tunnel is closed meanwhile, or cannot be had again."""
        self.report(Warned(f"the SSH connection to {self.endpoint.place} broke; opening it again"))
        give_up_at, pause_s = time.monotonic() + OUTAGE_S, 1.0
        while not self.closing.wait(pause_s):
            try:
                process = self._start(ports, time.monotonic() + OPEN_S)
            except DhctlError as error:
                for_good = isinstance(error, HostKeyDiffersError | LoginRefusedError)
                if self.closing.is_set():
                    return None
                if for_good or time.monotonic() >= give_up_at:
                    self.report(Warned(str(error)))
                    return None
            else:
                self.report(Noted(f"the SSH connection to {self.endpoint.place} is open again"))
                return process
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    def _start(self, ports: Mapping[str, int], until: float) -> subprocess.Popen[bytes]:
        """An ssh that has logged in and listens on all the ports. Raises ClusterError."""
        with (
            ExitStack() as on_failure,
            tempfile.TemporaryFile() as own_log,
            tempfile.TemporaryFile() as hop_log,
        ):
            command = [*arguments(self.endpoint), *logging_to(own_log), *self._forwarding(ports)]
            command += destination(self.endpoint)
            process = spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=hop_log)
            on_failure.callback(end, process)
            assert process.stdout
            if not self._wait_until_ready(process.stdout, until):
                if process.poll() is None and time.monotonic() >= until:
                    raise UnreachableError(f"no SSH tunnel to {self.endpoint.place} in time", "try again")
                end(process)
                raise failure(self.endpoint, text_of(own_log), text_of(hop_log))
            on_failure.pop_all()
        return process

    def _forwarding(self, ports: Mapping[str, int]) -> list[str]:
        """ssh runs the local command when it has logged in and holds all ports: the one sure sign of both."""
        ways = [
            f"{LOOPBACK}:{ports[name]}:{f'[{host}]' if ':' in host else host}:{port}"
            for name, (host, port) in self.forwards.items()
        ]
        settings = ["ExitOnForwardFailure=yes", "PermitLocalCommand=yes", f"LocalCommand=echo {READY}"]
        return ["-N", "-T", *(w for s in settings for w in ("-o", s)), *(w for way in ways for w in ("-L", way))]

    def _wait_until_ready(self, told: IO[bytes], until: float) -> bool:
        while time.monotonic() < until and not self.closing.is_set():
            if select.select([told], [], [], LOOK_EVERY_S)[0]:
                return READY.encode() in told.readline()
        return False


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nobody listened a moment ago, all different."""
    with ExitStack() as held:
        doors = [held.enter_context(socket.socket()) for _ in range(count)]
        for door in doors:
            door.bind((LOOPBACK, 0))
        return [int(door.getsockname()[1]) for door in doors]


def taken(ports: Iterable[int]) -> bool:
    """Whether somebody holds one of these ports of the loopback."""
    for port in ports:
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended there do not count
            try:
                door.bind((LOOPBACK, port))
            except OSError:
                return True
    return False
