"""What a job says, kept beside the run as it comes: the whole log, the metrics of each epoch, the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from dhctl.infra.events import JobLogged, JobProgressed, Report, Warned
from dhctl.ray_jobs.report import Notice, Progress, Result, parse


class JobJournal:
    """Takes a job's lines and writes driver.log and metrics.jsonl in `folder`; remembers the result."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self.result: Mapping[str, Any] | None = None
        self.last_line = ""
        """The last thing that the job itself said."""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log: IO[str] = (self._folder / "driver.log").open("w", encoding="utf-8", errors="replace")
        self._metrics: IO[str] = (self._folder / "metrics.jsonl").open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._log.close()
        self._metrics.close()

    def take(self, line: str) -> None:
        """One line of the job, without its end; messages of the protocol become events, all else is shown as it is."""
        self._log.write(line + "\n")
        self._log.flush()
        match parse(line):
            case Progress() as told:
                row = {**told.metrics, "stage": told.stage, "step": told.step, "of": told.of, "unit": told.unit}
                self._metrics.write(json.dumps(row) + "\n")
                self._metrics.flush()
                self._report(JobProgressed(told.stage, told.step, told.of, told.unit, told.metrics))
            case Result() as told:
                self.result = told.result
            case Notice() as told:
                self._report(Warned(told.text))
            case None:
                self.last_line = line.strip() or self.last_line
                self._report(JobLogged(line))
