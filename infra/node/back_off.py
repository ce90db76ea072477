"""When to ask for a worker again after somebody said no. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S, LONGEST_S = 15.0, 600.0


class BackOff:
    """After each failure it waits twice as long as before, 15 s to 10 min. Not thread-safe: its owner has a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s, self._until, self.reason = FIRST_S, 0.0, ""
        self.failed_at = 0.0
        """Epoch seconds of the newest failure."""

    def failed(self, reason: str) -> float:
        """One more failure; the seconds until the next try. Failures of one round count once."""
        now = self._clock()
        self.reason, self.failed_at = reason, time.time()
        if now >= self._until:
            self._until = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
        return self._until - now

    def worked(self) -> None:
        """The next failure is the first again."""
        self._pause_s, self._until, self.reason = FIRST_S, 0.0, ""

    @property
    def left_s(self) -> float:
        """Seconds until the next try is due; 0 when it may be made now."""
        return max(0.0, self._until - self._clock())
