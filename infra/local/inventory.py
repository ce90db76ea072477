"""Looking at this machine for everything of one run, by proof of ownership, and removing it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import supervisor
from dhctl.infra.local.head import subnet_of
from dhctl.infra.local.layout import RunFolder
from dhctl.infra.local.nodes import kill_tree, session_of, supervisors
from dhctl.infra.processes import ProcessMark, carries_mark, listeners, stop_all
from dhctl.infra.receipt import Check, Leftover

RAY_TITLE = re.compile(r"ray::|ray-dashboard-|(raylet|gcs_server)$")
"""How Ray's processes call themselves that may have lost their environment."""


def owned_processes(folder: RunFolder, ledger: Ledger) -> list[ProcessMark]:
    """Every living process that proves to be this run's, this process and its ancestors left out. Proofs:

    it is a supervisor with the run's id; its environment holds the mark (Ray overwrites that of about half its
    processes with titles); it is a Ray process with its work below the run folder; it is in the session of a recorded
    supervisor; or it descends from one of these.
    """
    roots = {pid for pid, _ in supervisors(folder.run_id)}
    roots |= {m.pid for m in recorded_processes(ledger) if m.alive()}
    for pid in psutil.pids():
        if carries_mark(pid, folder.run_id) or _is_ray_below(pid, folder.path):
            roots.add(pid)
    found = roots.union(*map(supervisor.members, roots), *map(session_of, recorded_processes(ledger)))
    found -= {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    return [m for m in map(ProcessMark.of, sorted(found)) if m]


def recorded_processes(ledger: Ledger) -> Iterator[ProcessMark]:
    """Supervisors that the ledger tells of."""
    for entry in ledger.entries():
        if entry.act in ("head.start", "node.start", "autoscaler.start"):
            mark = ProcessMark.from_dict(entry.detail.get("process"))
            if mark:
                yield mark


def _is_ray_below(pid: int, folder: Path) -> bool:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        if not RAY_TITLE.match(Path(title.split("\0")[0].split(" ")[0]).name):
            return False
        links = [Path(f"/proc/{pid}/cwd"), *Path(f"/proc/{pid}/fd").iterdir()]
        return any(_link(link).startswith(f"{folder}/") for link in links)
    except OSError:
        return False


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # closed while we looked


def sweep(folder: RunFolder, ledger: Ledger) -> None:
    """Ends the run's processes and removes its folder. Does nothing where nothing is left."""
    end_processes(folder, ledger)
    if folder.path.exists():
        with ledger.ending("sweep.folder", path=str(folder.path)):
            folder.remove()


def end_processes(folder: RunFolder, ledger: Ledger) -> None:
    """Ends the run's processes. Raises TimeoutError when one does not die."""
    living = owned_processes(folder, ledger)
    if living:
        with ledger.ending("sweep.processes", pids=[m.pid for m in living]):
            stop_all(living, grace_s=3)
            for mark in recorded_processes(ledger):
                kill_tree(mark)


def look(folder: RunFolder, ledger: Ledger) -> list[Check]:
    """The receipt's checks for this machine."""
    owned = owned_processes(folder, ledger)
    return [_look_processes(folder, owned), _look_ports(folder, ledger, owned), _look_folder(folder)]


def _look_processes(folder: RunFolder, left: list[ProcessMark]) -> Check:
    found = tuple(Leftover("process", _describe(m), f"kill -9 {m.pid}") for m in left)
    return Check("processes of this machine", f"the mark {folder.run_id}, recorded supervisors, descendants", found)


def _describe(mark: ProcessMark) -> str:
    try:
        return f"{psutil.Process(mark.pid).name()} (pid {mark.pid}, started at tick {mark.ticks})"
    except psutil.Error:
        return f"pid {mark.pid} (started at tick {mark.ticks})"


def _look_ports(folder: RunFolder, ledger: Ledger, left: list[ProcessMark]) -> Check:
    """A listener on a port the run used counts only if it is the run's: others may have taken the port since."""
    ports = recorded_ports(ledger)
    owned = {m.pid for m in left}
    subnet, found, hidden = subnet_of(folder.run_id), [], []
    try:
        listening = list(listeners())
    except psutil.Error as error:
        return Check("listening ports", _ports_text(ports, subnet), (), f"sockets cannot be listed ({error})")
    for socket in listening:
        on_subnet = socket.address.startswith(subnet)
        if on_subnet and socket.pid is None:
            hidden.append(f"{socket} has no visible owner")
        elif socket.pid in owned and (on_subnet or socket.port in ports):
            found.append(Leftover("listening port", str(socket), f"kill -9 {socket.pid}"))
    return Check("listening ports", _ports_text(ports, subnet), tuple(found), "; ".join(hidden))


def _ports_text(ports: set[int], subnet: str) -> str:
    return f"{len(ports)} ports that the run used, and its addresses {subnet}0/24"


def recorded_ports(ledger: Ledger) -> set[int]:
    """All ports that were given to nodes of the run."""
    starts = (e for e in ledger.entries() if e.act in ("head.start", "node.start"))
    return {int(port) for e in starts for port in e.detail.get("ports", {}).values()}


def _look_folder(folder: RunFolder) -> Check:
    looked_for = f"{folder.path}, with the token, sockets and sessions of Ray"
    try:
        present = folder.path.lstat() is not None
    except FileNotFoundError:
        present = False
    except OSError as error:
        return Check("run folder", looked_for, (), f"cannot be looked at ({error.strerror})")
    found = (Leftover("folder", str(folder.path), f"rm -r {folder.path}"),) if present else ()
    return Check("run folder", looked_for, found)
