"""How a job ended, and keeping that in the run's record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dhctl.infra.errors import HeadLostError, JobFailedError, NotUpError
from dhctl.infra.events import Report, Warned
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.object_store import ObjectStoreError, keep_files
from dhctl.infra.record import RunRecord
from dhctl.ray_jobs.launch import TIMED_OUT

LOST = "LOST"
"""The status of a job whose head was lost; all others are Ray's words."""


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended. `seconds` from submission, `time_to_model_s` from the start of the run."""

    number: int
    status: str
    exit_code: int | None
    last_line: str
    seconds: float
    time_to_model_s: float
    result: Mapping[str, Any] | None

    @property
    def succeeded(self) -> bool:
        """Ray says so."""
        return self.status == "SUCCEEDED"

    def require_success(self, record: RunRecord) -> None:
        """Raises JobFailedError with the reason and where the log lies."""
        if self.succeeded:
            return
        log = record.job_dir(self.number) / "driver.log"
        if self.status == LOST:
            next_step = f"`dhctl train {record.run_id}` goes on from the last checkpoint while the run lives; {log}"
            raise HeadLostError("the job was lost with its head", next_step)
        if self.status == "STOPPED" and datetime.now(UTC) >= record.expires_at:
            raise JobFailedError("the lease ended before the job was done and it was stopped", f"raise lease; {log}")
        if self.exit_code == TIMED_OUT:
            limit = record.spec.job.timeout.total_seconds()
            raise JobFailedError(
                f"the job was not done after {limit:.0f} s and was stopped", f"raise job.timeout; {log}"
            )
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        raise JobFailedError(f"the job {self.status}{code}: {self.last_line or 'it said nothing'}", f"its log is {log}")


def outcome_at_loss(record: RunRecord, number: int, at: datetime, journal: JobJournal) -> JobOutcome:
    """Of a job that was submitted `at` and is lost with its head."""
    now = datetime.now(UTC)
    seconds, since_opened = ((now - begun).total_seconds() for begun in (at, record.opened().at))
    return JobOutcome(number, LOST, None, journal.last_line, round(seconds, 1), round(since_opened, 1), journal.result)


def read_outcome(record: RunRecord, number: int) -> JobOutcome:
    """As `save_outcome` wrote it. Raises NotUpError when it is not there: the run was ended before."""
    folder = record.job_dir(number)
    try:
        told = json.loads((folder / "result.json").read_text())
    except FileNotFoundError as error:
        told = f"how job {number} of {record.run_id} ended was not recorded"
        raise NotUpError(told, f"what it said is in {folder}") from error
    with JobJournal(folder, lambda event: None) as journal:
        last_line = journal.last_line
    body = {field: told.get(field) for field in ("status", "exit_code", "seconds", "time_to_model_s", "result")}
    return JobOutcome(number=number, last_line=last_line, **body)


KEPT = ("driver.log", "metrics.jsonl", "result.json")
"""A job's files in the record; where the output is an S3 prefix they are copied there, under the same jobs/<n>."""


def save_outcome(record: RunRecord, outcome: JobOutcome, report: Report) -> None:
    """Writes jobs/<n>/result.json: how the job ended, and what it said its result is.

    A store that cannot be written is a warning: the record has all of it.
    """
    body = {
        "run": record.run_id,
        "job": outcome.number,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "seconds": outcome.seconds,
        "time_to_model_s": outcome.time_to_model_s,
        "output": record.output,
        "result": outcome.result,
    }
    folder = record.job_dir(outcome.number)
    record.write_json(folder / "result.json", body)
    if record.output.startswith("s3://"):
        try:
            keep_files(record.output, f"jobs/{outcome.number}", [folder / name for name in KEPT])
        except ObjectStoreError as error:
            report(Warned(str(error)))
