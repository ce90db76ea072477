"""Ending the autoscaler of this head for good. Standard library only, also for the system's Python."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dhctl.infra.node.layout import NodeFolder, read_json

STOP = "stop-autoscaler"
GRACE_S, KILL_S = 4.0, 5.0
PAUSE_S = 0.05


def stop_autoscaler(folder: NodeFolder) -> None:
    """Nothing new may start from now on; returns when the autoscaler is gone. Silent when it is not there.

    The agent ends it when it sees the file `stopping`; where the agent is gone too, it is ended here. Raises
    TimeoutError when it does not die.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.stopping.touch()
    told = read_json(folder.agent).get("monitor") or {}
    pid, ticks = int(told.get("pid", 0)), int(told.get("ticks", 0))
    if _gone(pid, ticks, GRACE_S):
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if not _gone(pid, ticks, KILL_S):
        raise TimeoutError(f"the autoscaler (pid {pid}) does not die")


def start_ticks(pid: int) -> int:
    """Kernel start time of a living process; 0 when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _gone(pid: int, ticks: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while pid and start_ticks(pid) == ticks:
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_S)
    return True
