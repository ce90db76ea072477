"""Several elastic trainings on one cluster, each with a driver of its own: python sides.py share|end."""

import os
import subprocess
import sys
import time
from pathlib import Path


def side(*words):
    """Start one."""
    return subprocess.Popen([sys.executable, "side.py", *words])


def epochs(name):
    """How many it has done."""
    file = Path(os.environ["DHCTL_OUTPUT"], name, "metrics.jsonl")
    return len(file.read_text().splitlines()) if file.exists() else 0


def until(told, what):
    """Wait for it, for a minute and a half."""
    end = time.monotonic() + 90
    while not told():
        if time.monotonic() > end:
            sys.exit(f"{what} was not seen")
        time.sleep(0.2)


def share():
    """The second comes when the first has all workers."""
    first = side("first", "0.25", "14")
    until(lambda: epochs("first") > 0, "an epoch of the first")
    second = side("second", "0.25", "2")
    return second.wait() or first.wait()


def end():
    """One whose loss is no number, and one whose driver is killed and started again."""
    began = time.monotonic()
    print("ill ended with", side("ill", "nan", "9").wait(), "after", time.monotonic() - began, "s", flush=True)

    killed = side("killed", "0.1", "6")
    until(lambda: epochs("killed") > 1, "an epoch of the one to kill")
    killed.kill()
    killed.wait()
    began, before = time.monotonic(), epochs("killed")
    again = side("killed", "0.1", "6")
    until(lambda: epochs("killed") > before, "going on after the kill")
    print("killed went on after", time.monotonic() - began, "s", flush=True)
    return again.wait()


sys.exit({"share": share, "end": end}[sys.argv[1]]())
