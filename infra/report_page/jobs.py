"""The jobs of a run as the record tells them: how each ended, what it measured, what it warned of, its last words."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dhctl.infra.job_entries import JobEntries, job_entries
from dhctl.infra.ledger import Entry
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page.files import number, read_object, read_rows
from dhctl.infra.report_page.words import plain
from dhctl.ray_jobs.report import Notice, parse

TAIL_LINES = 30
NOTICES = 200
"""Warnings of one job that are shown at most."""

ROWS = 100_000
"""Progress lines of one job that are read at most."""


@dataclass(frozen=True)
class Metric:
    """The result's metric. `low` and `high` bound its 95 % interval; `baselines` are what trivial methods reach."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    baselines: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class JobStory:
    """One job. `rows` are its progress lines, oldest first."""

    number: int
    status: str
    """Ray's word for its end; "" of one that runs, or whose end nobody saw."""
    exit_code: int | None = None
    seconds: float | None = None
    time_to_model_s: float | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    notices: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    """The last lines it printed."""
    after: int | None = None
    """The job that it goes on from, whose head was lost."""
    code_sha256: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Ray says so."""
        return self.status == "SUCCEEDED"

    @property
    def metric(self) -> Metric | None:
        """What its result says, in the shape of CONTRIBUTING, "Add a job"; None where it has none."""
        return metric_of(self.result)


def jobs_of(record: RunRecord, entries: Sequence[Entry]) -> list[JobStory]:
    """All jobs of a run, oldest first."""
    return [_job(record, job) for job in job_entries(entries)]


def chain(jobs: Sequence[JobStory]) -> list[JobStory]:
    """The newest job, and before it those that it goes on from."""
    by_number = {job.number: job for job in jobs}
    found = [jobs[-1]] if jobs else []
    while found and (before := by_number.get(found[0].after or 0)) and before not in found:
        found.insert(0, before)
    return found


def metric_of(result: Mapping[str, Any]) -> Metric | None:
    """The metric of a result; a bare number is one without interval and baseline."""
    told = result.get("metric")
    if not isinstance(told, dict) or (value := number(told.get("value"))) is None:
        return None
    interval = told.get("ci95")
    low, high = interval if isinstance(interval, list) and len(interval) == 2 else (None, None)
    several = told.get("baselines")
    baselines = [told.get("baseline"), *(several if isinstance(several, list) else [])]
    return Metric(str(told.get("name", "metric")), value, number(low), number(high), tuple(_baselines(baselines)))


def _baselines(told: Sequence[Any]) -> Iterator[tuple[str, float]]:
    seen = set()
    for one in told:
        if isinstance(one, dict) and (value := number(one.get("value"))) is not None:
            name = str(one.get("name", "baseline"))
            if name not in seen:
                seen.add(name)
                yield name, value


def _job(record: RunRecord, job: JobEntries) -> JobStory:
    folder = record.job_dir(job.number)
    saved = read_object(folder / "result.json") or {}
    exit_code, after = number(saved.get("exit_code")), number(job.begun.detail.get("after"))
    took_s = (job.ended.at - job.begun.at).total_seconds() if job.ended else None
    result = saved.get("result")
    notices, tail = _log(folder / "driver.log")
    return JobStory(
        number=job.number,
        status=str(saved.get("status") or job.status),
        exit_code=None if exit_code is None else int(exit_code),
        seconds=number(saved.get("seconds")) or took_s,
        time_to_model_s=number(saved.get("time_to_model_s")),
        result=result if isinstance(result, dict) else {},
        rows=tuple(islice(read_rows(folder / "metrics.jsonl"), ROWS)),
        notices=notices,
        tail=tail,
        after=None if after is None else int(after),
        code_sha256=str(job.begun.detail.get("sha256", "")),
        environment=read_object(folder / "environment.json") or {},
    )


def _log(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a job warned of, and its last lines without those that it sent to dhctl."""
    notices: dict[str, None] = {}
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                match parse(line):
                    case Notice(text) if len(notices) < NOTICES:
                        notices[text] = None
                    case None if line.strip():
                        tail.append(plain(line.rstrip("\n")))
                    case _:
                        continue
    except OSError:
        return (), ()
    return tuple(notices), tuple(tail)
