"""Telling how far a verb is, seldom enough for a log."""

from __future__ import annotations

import threading
import time
from typing import Self

from dhctl.infra.events import JobProgressed, Report

EVERY_S = 1.0
_MIB = 2**20


class Progress:
    """Counts units from any thread, and reports at most once a second, and at the end."""

    def __init__(self, report: Report, stage: str, total: int, unit: str, unit_size: int = 1) -> None:
        self._report, self._stage, self._total, self._unit, self._size = report, stage, total, unit, unit_size
        self._done, self._told, self._lock = 0, time.monotonic(), threading.Lock()

    @classmethod
    def of_bytes(cls, report: Report, stage: str, total: int) -> Self:
        """Told in MiB."""
        return cls(report, stage, total, "MiB", _MIB)

    def add(self, count: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count
            finished = self._done >= self._total
            if not finished and time.monotonic() - self._told < EVERY_S:
                return
            self._told = time.monotonic()
            step, of = (-(-value // self._size) for value in (self._done, self._total))
        self._report(JobProgressed(self._stage, step, of, self._unit))
