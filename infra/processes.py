"""Processes with an identity that survives pid reuse and reboots, and stopping exactly them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from dhctl.infra.mark import RUN_ENV


def wait_until(done: Callable[[], bool], seconds: float, every_s: float = 0.05) -> bool:
    """Polls `done` until it holds, at most `seconds`; whether it held."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= end:
            return False
        time.sleep(every_s)
    return True


def boot_id() -> str:
    """Changes with each boot of this machine, so that recorded pids of an earlier boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Kernel start time of a living process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def carries_mark(pid: int, run_id: str) -> bool:
    """Whether a process has the run's mark in its environment. False for another user's: it cannot be ours."""
    try:
        return f"{RUN_ENV}={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


@dataclass(frozen=True)
class Listener:
    """A TCP socket that listens on this machine; `pid` is None where the owner cannot be seen."""

    address: str
    port: int
    pid: int | None

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def listeners() -> Iterator[Listener]:
    """All of them. Raises psutil.Error where sockets cannot be listed."""
    for found in psutil.net_connections(kind="tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr:
            yield Listener(found.laddr.ip, found.laddr.port, found.pid)


@dataclass(frozen=True)
class ProcessMark:
    """One process for ever: its pid, its kernel start time, and the boot in which that counts."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The mark of a living process, None when it is gone."""
        ticks = start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    @classmethod
    def me(cls) -> Self:
        """The mark of this process."""
        mark = cls.of(os.getpid())
        assert mark is not None  # we are alive
        return mark

    @classmethod
    def from_dict(cls, body: Any) -> Self | None:
        """The mark as `to_dict` wrote it; None when `body` is no mark."""
        try:
            return cls(int(body["pid"]), int(body["ticks"]), str(body["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def alive(self) -> bool:
        """Whether exactly this process still lives."""
        return start_ticks(self.pid) == self.ticks and boot_id() == self.boot

    def signal(self, signum: int) -> bool:
        """Sends a signal if exactly this process still lives; whether it did."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True


def children(pid: int) -> list[ProcessMark]:
    """The processes that a process started itself, those of them that live."""
    try:
        found = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
    return [mark for child in found if (mark := ProcessMark.of(child.pid))]


def stop_all(marks: Iterable[ProcessMark], grace_s: float, kill_s: float = 5.0) -> list[ProcessMark]:
    """SIGTERM to all, `grace_s` for them to end, SIGKILL to the rest, `kill_s` more. Those that still live."""
    living = [m for m in marks if m.signal(signal.SIGTERM)]
    wait_until(lambda: not any(m.alive() for m in living), grace_s)
    left = [m for m in living if m.signal(signal.SIGKILL)]
    wait_until(lambda: not any(m.alive() for m in left), kill_s)
    return [m for m in left if m.alive()]
