"""metrics.jsonl: one line an epoch, without doubles after a resume, and the progress lines that go with it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from dhctl.ray_jobs import report
from dhctl.ray_jobs.storage import Store

FILE = "metrics.jsonl"
HIDDEN = ("epoch", "loop_s", "workers")
"""Metrics that are written but not shown."""


class EpochLog:
    """The epochs of one training, known by its name; lines of other trainings in the same output are dropped."""

    def __init__(self, output: Store, training: str, epochs: int) -> None:
        self._output, self._training, self._epochs = output, training, epochs
        self._lines: dict[int, dict[str, object]] = {}
        self._told: set[int] = set()
        if output.exists(FILE):
            for text in output.read(FILE).decode().splitlines():
                line = json.loads(text)
                if line.get("training") == training:
                    self._lines[int(line["epoch"])] = line

    def add(self, metrics: Mapping[str, float]) -> None:
        """Report an epoch to dhctl and write it down; an epoch done again after a resume replaces its line."""
        self._keep(metrics)
        self._write()
        self._tell(metrics)

    def settle(self, history: Sequence[Mapping[str, float]]) -> None:
        """Make the file what the last checkpoint says: also epochs whose line a lost driver did not write.

        Those that a lost worker kept from being told in time are told now; what an earlier driver told is not.
        """
        self._lines.clear()
        for metrics in history:
            self._keep(metrics)
        self._write()
        untold = set(self._lines) - self._told
        for metrics in history:
            if int(metrics["epoch"]) in untold and int(metrics["epoch"]) > min(self._told, default=len(history)):
                self._tell(metrics)

    def _tell(self, metrics: Mapping[str, float]) -> None:
        shown = {name: value for name, value in metrics.items() if name not in HIDDEN}
        report.progress("train", int(metrics["epoch"]), self._epochs, shown)
        self._told.add(int(metrics["epoch"]))

    def _keep(self, metrics: Mapping[str, float]) -> None:
        # JSON has no NaN: an undefined metric is null.
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._lines[int(metrics["epoch"])] = {**numbers, "epoch": int(metrics["epoch"]), "training": self._training}

    def _write(self) -> None:
        # The whole file each time: S3 objects cannot be appended to, and it stays small.
        lines = (json.dumps(self._lines[epoch], sort_keys=True) for epoch in sorted(self._lines))
        self._output.write(FILE, "".join(f"{line}\n" for line in lines).encode())
