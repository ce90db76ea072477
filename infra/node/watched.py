"""One process that the agent keeps running, and how it ends. Standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dhctl.infra.local import supervisor

PR_SET_PDEATHSIG = 1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
SOUND_S = 60.0
"""A process that ran this long may be started again at once."""

RAY_GRACE_S, RAY_KILL_S = 3.0, 20.0
STOP_S = 2.0
_LIBC = ctypes.CDLL(None)


def spawn(
    command: Sequence[str], env: Mapping[str, str], log: Path, *, survives: bool = False
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own; its output is added to `log`.

    It dies with the agent unless it `survives`.
    """

    def die_with_agent() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            preexec_fn=None if survives else die_with_agent,  # noqa: PLW1509 - the agent has one thread
        )


def supervised(
    command: Sequence[str], node_id: str, run_id: str, until: float, grace_s: float = RAY_GRACE_S
) -> list[str]:
    """`command` under the supervisor that kills the whole tree of its processes when it ends, and at `until`."""
    words = [sys.executable, "-I", "-S", supervisor.__file__, "--run", run_id, "--node", node_id]
    return [*words, "--grace", str(grace_s), "--until", str(until), "--", *command]


def stop(process: subprocess.Popen[bytes], grace_s: float, signum: int = signal.SIGTERM) -> None:
    """`signum`, `grace_s` to end, then SIGKILL to its session."""
    if process.poll() is not None:
        return
    process.send_signal(signum)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


class Watched:
    """A process that is started again when it ends, at once at first, then after longer and longer pauses.

    One that ends with status 0 has done its work and is not started again.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        survives: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command, self._env, self._log, self._clock = command, env, log, clock
        self._survives = survives
        self.process: subprocess.Popen[bytes] | None = None
        self._started, self._due, self._pause_s = 0.0, 0.0, FIRST_PAUSE_S
        self._done = False

    def keep(self) -> bool:
        """Looks and starts; whether it was started now."""
        if self._done or (self.process and self.process.poll() is None):
            return False
        now = self._clock()
        if self.process:
            self._done = self.process.returncode == 0
            sound = now - self._started > SOUND_S
            self._pause_s = FIRST_PAUSE_S if sound else min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._due, self.process = now + self._pause_s, None
        if self._done or now < self._due:
            return False
        self._started = now
        self.process = spawn(self._command, self._env, self._log, survives=self._survives)
        return True

    def end(self) -> None:
        """Stops it for good; one that survives the agent goes on."""
        self._done = True
        if self.process and not self._survives:
            stop(self.process, STOP_S)
