"""Daemons of a testbed as a table, and starting, finding and stopping exactly those."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dhctl.infra.processes import ProcessMark, stop_all, wait_until
from testbeds.errors import TestbedError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's own interpreter and tools, nothing of a virtual environment or of pyenv."""
MARK_ENV = "DHCTL_TESTBED_MARK"
"""In the environment of every process of a testbed, with its state folder: the mark by which strays are found."""


def clean_env(state: Path) -> dict[str, str]:
    """The environment of every process of a testbed: its mark, and nothing of the caller's but this."""
    return {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "PYTHONWARNINGS": "ignore",
        MARK_ENV: str(state),
    }


@dataclass(frozen=True)
class Service:
    """One daemon: what starts it, where it listens, how long it may take to open that port and to end."""

    name: str
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 120
    stop_s: float = 3
    """An API needs no goodbye: what it was doing is thrown away with its data."""


class Services:
    """Those of one testbed that were started, by their marks in `services.json` of its state folder."""

    def __init__(self, state: Path, addresses: tuple[str, ...]) -> None:
        self.state = state
        self.log = state / "log"
        """One file a service. Kept when the testbed goes, for whoever asks why."""
        self.file = state / "services.json"
        """Name of the service -> mark of its process."""
        self._addresses = addresses
        self._children: list[subprocess.Popen[bytes]] = []

    def marks(self) -> dict[str, ProcessMark]:
        """Name -> process, alive or not. Empty when none was ever started."""
        try:
            body = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {}
        found = ((name, ProcessMark.from_dict(mark)) for name, mark in body.items())
        return {name: mark for name, mark in found if mark is not None}

    def start(self, service: Service) -> None:
        """Starts one in a session of its own, its output in its log, and notes its mark."""
        with (self.log / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(
                service.command,
                env=clean_env(self.state) | dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.state,
                start_new_session=True,
            )
        self._children.append(process)
        mark = ProcessMark.of(process.pid)
        marks = {name: mark.to_dict() for name, mark in self.marks().items()}
        if mark is None:
            raise TestbedError(f"{service.name} ended at once:\n{self.tail(service.name)}")
        body = json.dumps({**marks, service.name: mark.to_dict()})
        draft = self.file.with_suffix(".new")
        draft.write_text(body)
        draft.rename(self.file)

    def wait_open(self, services: Iterable[Service]) -> None:
        """Until all their ports answer. Raises TestbedError with the log's end when one ends or is late."""
        for service in services:
            mark = self.marks()[service.name]
            for port in service.ports:
                wait_until(partial(self._answers_or_ended, port, mark), service.start_s, 0.1)
                if not self._answers(port):
                    why = f"does not listen on {port} after {service.start_s:.0f} s" if mark.alive() else "ended"
                    raise TestbedError(f"{service.name} {why}:\n{self.tail(service.name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a service's log."""
        return "\n".join((self.log / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def stop(self, services: Sequence[Service]) -> list[ProcessMark]:
        """Ends these, and all in their sessions, together. Processes that outlived even SIGKILL."""
        marks = self.marks()
        wanted = [(service, marks[service.name]) for service in services if service.name in marks]
        members = [mark for _, leader in wanted for mark in _session(leader)]
        left = stop_all(members, max((service.stop_s for service, _ in wanted), default=0))
        # Those that this very process started are to be waited for; all others have init for that.
        self._children = [child for child in self._children if child.poll() is None]
        return left

    def strays(self) -> list[ProcessMark]:
        """Living processes with the testbed's mark: dnsmasq, haproxy, epmd, instances, whatever a service left."""
        wanted = f"{MARK_ENV}={self.state}".encode()
        own = {os.getpid(), os.getppid()}
        pids = [
            int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and int(path.name) not in own
        ]
        marks = [ProcessMark.of(pid) for pid in pids if wanted in _environment(pid)]
        return [mark for mark in marks if mark is not None]

    def stop_strays(self, grace_s: float = 2) -> list[ProcessMark]:
        """Ends them. Those that outlived even SIGKILL."""
        return stop_all(self.strays(), grace_s)

    def _answers_or_ended(self, port: int, mark: ProcessMark) -> bool:
        return self._answers(port) or not mark.alive()

    def _answers(self, port: int) -> bool:
        """On any of the testbed's own addresses."""
        return any(_listens(address, port) for address in self._addresses)


def states() -> dict[Path, int]:
    """State folders of all testbeds of which a process lives, and the number of one of its processes."""
    found = {}
    for path in Path("/proc").iterdir():
        for line in _environment(int(path.name)) if path.name.isdecimal() else ():
            name, _, value = line.decode(errors="replace").partition("=")
            if name == MARK_ENV:
                found[Path(value)] = int(path.name)
    return found


def _session(leader: ProcessMark) -> list[ProcessMark]:
    """The leader and all processes of its session; none when it is gone and its number may be another's."""
    if not leader.alive():
        return []
    members = [leader]
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and int(path.name) != leader.pid and _session_id(int(path.name)) == leader.pid:
            mark = ProcessMark.of(int(path.name))
            members += [mark] if mark else []
    return members


def _session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile
        return []


def _listens(address: str, port: int) -> bool:
    """On this very machine: without the bridge the address is a stranger's, and a gateway may answer for it."""
    with socket.socket() as probe:
        probe.settimeout(1)
        try:
            probe.bind((address, 0))
        except OSError:  # not an address of this machine
            return False
        return probe.connect_ex((address, port)) == 0
