"""The loop that keeps the parts of a node running. Standard library only."""

from __future__ import annotations

import signal
import time
from typing import Protocol

TICK_S = 0.2


class Part(Protocol):
    """What the agent keeps running."""

    def keep(self) -> object:
        """Looks, and starts or stops what must be. Returns soon."""

    def end(self) -> None:
        """Stops it for good."""


class Agent:
    """The loop over all parts."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts, self._ending = parts, False

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then all parts end, the last one first."""

        def stop(_signum: int, _frame: object) -> None:
            self._ending = True

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
        while not self._ending:
            for part in self._parts:
                part.keep()
            time.sleep(TICK_S)
        for part in reversed(self._parts):
            part.end()
