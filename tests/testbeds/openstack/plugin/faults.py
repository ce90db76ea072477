"""Faults that a test orders: what happens before or after an operation of the stand-in.

`$DHCTL_STANDIN_FAULTS` names a JSON file, read at each call and rewritten when a fault has happened as often as it
shall: a list of {"type": "openstack:compute/instance:Instance", "op": "create", "when": "after", "do": "die"} with
op create, read, update or delete; when before or after; do die (the Pulumi CLI and this plugin get SIGKILL), hang
(until cancelled, an hour at most) or error (with "text"). Optional: "name", the resource in the program; "times", 1.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any, Literal

from testbeds.openstack.plugin.cloud import ApiError

FAULTS_ENV = "DHCTL_STANDIN_FAULTS"
HANG_S = 3600.0

Operation = Literal["create", "read", "update", "delete"]
When = Literal["before", "after"]


class Faults:
    """Those that are ordered now."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        """Set when the engine asks the plugin to stop: ends a hang."""

    def strike(self, kind: str, op: Operation, when: When, name: str) -> None:
        """What was ordered for this moment, if anything. Raises ApiError for an ordered error."""
        fault = _take({"type": kind, "op": op, "when": when, "name": name})
        if fault is None:
            return
        match fault["do"]:
            case "die":
                _die()
            case "hang":
                self.cancelled.wait(HANG_S)
                raise ApiError(f"the ordered hang of {op} {name} ended")
            case "error":
                raise ApiError(str(fault.get("text", "an ordered error")))
            case other:
                raise ApiError(f"{os.environ[FAULTS_ENV]}: no fault is called {other}")


def _take(moment: dict[str, str]) -> dict[str, Any] | None:
    """The first fault for this moment; it is struck off the list when it has happened often enough."""
    named = os.environ.get(FAULTS_ENV)
    if not named or not Path(named).exists():
        return None
    with Path(named).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        faults: list[dict[str, Any]] = json.load(file)
        found = next((f for f in faults if all(f.get(key, value) == value for key, value in moment.items())), None)
        if found is None:
            return None
        found["times"] = int(found.get("times", 1)) - 1
        file.seek(0)
        json.dump([f for f in faults if f.get("times", 1) > 0], file)
        file.truncate()
    return found


def _die() -> None:
    """As if the machine had stopped: the CLI that started this plugin first, then the plugin."""
    if os.getppid() > 1:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
