"""Supervises one node of a run: one supervisor, one session, one process tree. Standard library only, Linux.

    python supervisor.py --run ID --node ID --grace S --until EPOCH_S [--restart] -- COMMAND...

It is the sub-reaper of its tree, so that daemons which fork twice and start a session still come back to it.
SIGTERM: stops COMMAND, waits `grace` seconds, then kills every descendant, and exits when the tree is empty.
SIGINT: the same without the wait, for a tree that has nothing to save.
SIGKILL of the supervisor: COMMAND dies with it (PDEATHSIG), and `ray start --block` takes its children along.
`until`: the last defence of the lease; the tree ends then even when nobody else is left to end it.

It is started by its path with `python -I -S`, so it must not import dhctl.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
RESTART_PAUSE_S = 2.0
LIBC = ctypes.CDLL(None)


def process_table() -> dict[int, tuple[int, int]]:
    """Parent pid and session id of every living process (zombies left out), by pid."""
    table = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it ended while we looked
            if fields[0] != "Z":
                table[int(path.name)] = (int(fields[1]), int(fields[3]))
    return table


def is_supervisor(pid: int) -> bool:
    """Whether `pid` is a supervisor of any node of any run."""
    try:
        return b"supervisor.py\0--run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def members(root: int) -> set[int]:
    """The session of `root` and all descendants, without `root` and without the trees of other supervisors."""
    table = process_table()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    seen: set[int] = set()
    to_see = [root] + [pid for pid, (_, session) in table.items() if session == root]
    while to_see:
        pid = to_see.pop()
        if pid in seen or (pid != root and is_supervisor(pid)):
            continue
        seen.add(pid)
        to_see += children.get(pid, [])
    return seen - {root}


class Supervisor:
    """Runs one command and answers for everything it starts."""

    def __init__(self, command: list[str], grace_s: float, until: float, restart: bool) -> None:
        self.command, self.grace_s, self.until, self.restart = command, grace_s, until, restart
        self.stopping = False
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the command so that it dies with us."""

        def die_with_parent() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

        return subprocess.Popen(self.command, preexec_fn=die_with_parent)  # noqa: PLW1509 - single-threaded here

    def reap(self, child: subprocess.Popen[bytes]) -> None:
        """Collects every ended child, ours and adopted ones, without taking our command's status from Popen."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid == child.pid:
                child.poll()
            else:
                os.waitpid(ended.si_pid, 0)

    def watch(self) -> int:
        """Runs until told to stop, until the lease is over, or until the command ends. The exit status to give."""
        child = self.start()
        while not self.stopping and time.time() < self.until:
            self.reap(child)
            if child.poll() is not None:
                if not self.restart:
                    break
                time.sleep(RESTART_PAUSE_S)
                child = self.start()
            time.sleep(0.1)
        status = child.poll()
        self.end(child)
        return 0 if status is None else status or 1

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """Stops the command, then kills what is left, and returns when the tree is empty."""
        if child.poll() is None:
            child.terminate()
            self.wait(lambda: child.poll() is not None, self.grace_s)
        while left := members(os.getpid()):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
            self.reap(child)
        self.reap(child)

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Waits for `done`, at most `seconds`."""
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(0.02)


def main() -> int:
    """Entry point of the supervisor process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getsid(0) != os.getpid():
        os.setsid()
    supervisor = Supervisor(args.command[1:], args.grace, args.until, args.restart)

    def stop(signum: int, _frame: object) -> None:
        supervisor.stopping = True
        if signum == signal.SIGINT:
            supervisor.grace_s = 0.0

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    return supervisor.watch()


if __name__ == "__main__":
    sys.exit(main())
