"""What a job says, kept beside the run as it comes: the whole log, the metrics of each epoch, the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from dhctl.infra.events import JobLogged, JobProgressed, Report, Warned
from dhctl.ray_jobs.report import Environment, Notice, Progress, Result, parse


class JobJournal:
    """Takes a job's lines and writes driver.log and metrics.jsonl in `folder`; remembers the result.

    Where a client that died has begun a journal, it goes on behind the last whole line of that: those before are not
    reported again.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self.result: Mapping[str, Any] | None = None
        self.last_line = ""
        """The last thing that the job itself said."""
        self.taken = 0
        """How many lines of the job are in the journal."""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "driver.log"
        begun = _whole_lines(path)
        self._log: IO[str] = path.open("r+" if begun else "w", encoding="utf-8", errors="replace")
        self._log.truncate(self._log.seek(len(begun)))
        self._metrics: IO[str] = (self._folder / "metrics.jsonl").open("w", encoding="utf-8")
        report, self._report = self._report, lambda event: None
        for line in begun.decode("utf-8", errors="replace").split("\n")[:-1]:
            self._read(line)
        self._report = report
        return self

    def __exit__(self, *error: object) -> None:
        self._log.close()
        self._metrics.close()

    def take(self, line: str) -> None:
        """One line of the job, without its end; messages of the protocol become events, all else is shown as it is."""
        self._log.write(line + "\n")
        self._log.flush()
        self._read(line)

    def _read(self, line: str) -> None:
        self.taken += 1
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
            case Environment() as told:
                (self._folder / "environment.json").write_text(json.dumps(asdict(told), indent=2) + "\n")
            case None:
                self.last_line = line.strip() or self.last_line
                self._report(JobLogged(line))


def _whole_lines(path: Path) -> bytes:
    """What a file has up to its last line end; a writer that was killed may have left half a line behind that."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]
