"""Ending the autoscaler of this head for good: what `down` runs on it, and waits for, so that it imports little.

Standard library only, also for the system's Python.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dhctl.infra.node.layout import NodeFolder, read_json

STOP_MODULE = "dhctl.infra.node.stop"
GRACE_S, KILL_S = 4.0, 5.0
PAUSE_S = 0.02


def stop_autoscaler(folder: NodeFolder) -> None:
    """Nothing new may start from now on; returns when the autoscaler is gone. Silent when it is not there.

    An agent that sees the file `stopping` starts none any more. Raises TimeoutError when the autoscaler does not die.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.stopping.touch()
    told = read_json(folder.agent).get("monitor") or {}
    pid, ticks = int(told.get("pid", 0)), int(told.get("ticks", 0))
    for signum, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, KILL_S)):
        if not pid or start_ticks(pid) != ticks:
            return
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return
        if _gone(pid, ticks, wait_s):
            return
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
    while start_ticks(pid) == ticks:
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_S)
    return True


if __name__ == "__main__":
    stop_autoscaler(NodeFolder.here())
