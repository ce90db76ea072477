"""A run's record: everything dhctl knows of a run, in one folder that stays after the run.

spec.json       the spec as admitted            jobs/<n>/bundle/     the code that was sent
ledger.jsonl    the journal                     jobs/<n>/driver.log  what the job printed
engine/         Pulumi's work_dir, logs         jobs/<n>/metrics.jsonl, jobs/<n>/result.json
receipt.json    what was left: nothing          output/              checkpoints, where the spec names no output
logs/           logs of the cluster             lock, job.lock       held by who changes it, follows its job
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from dhctl.infra.errors import RunBusyError, StateFolderError, UnknownRunError
from dhctl.infra.home import FORMAT, Home, storage_errors
from dhctl.infra.ledger import Entry, Ledger, last
from dhctl.infra.mark import RUN_ID, new_run_id
from dhctl.infra.spec import RunSpec


class RunState(StrEnum):
    """Where a run is in its life, as its ledger tells it."""

    STARTING = "starting"
    UP = "up"
    TRAINING = "training"
    RECOVERING = "recovering"
    FAILED = "failed"
    STOPPING = "stopping"
    CLEAN = "clean"
    LEFTOVERS = "leftovers"


@dataclass(frozen=True)
class RunRecord:
    """The folder of one run. Cheap to make: nothing is read before it is asked for."""

    home: Home
    run_id: str

    @property
    def folder(self) -> Path:
        """The record's folder."""
        return self.home.runs / self.run_id

    @property
    def ledger(self) -> Ledger:
        """The journal."""
        return Ledger(self.folder / "ledger.jsonl")

    @property
    def engine_dir(self) -> Path:
        """Pulumi's work_dir of this run."""
        return self.folder / "engine"

    def job_dir(self, number: int) -> Path:
        """What the run's job of this number (from 1) left for its user: log, metrics, result."""
        return self.folder / "jobs" / str(number)

    def last_job(self) -> int:
        """Number of the newest job; 0 when there was none."""
        submitted = last(self.ledger.entries(), "job", "intent")
        return int(submitted.detail["number"]) if submitted else 0

    @property
    def logs_dir(self) -> Path:
        """Logs of the cluster, copied before it goes."""
        return self.folder / "logs"

    @property
    def given_path(self) -> Path:
        """The spec as its user gave it, before admission; runs of older versions have none."""
        return self.folder / "spec.given.json"

    @property
    def receipt_path(self) -> Path:
        """The newest receipt."""
        return self.folder / "receipt.json"

    @cached_property
    def spec(self) -> RunSpec:
        """The spec as admitted. Raises StateFolderError when the record is damaged."""
        try:
            return RunSpec.model_validate_json((self.folder / "spec.json").read_text())
        except (OSError, ValueError) as error:
            raise StateFolderError(f"the record {self.folder} has no readable spec ({error})") from error

    @property
    def output(self) -> str:
        """Folder or s3:// URL under which this run's checkpoints and results lie."""
        if self.spec.resume is not None:
            return self.spec.resume
        if self.spec.output is None:
            return str(self.folder / "output")
        base, mark, query = self.spec.output.partition("?")  # an S3 URL may carry endpoint and region
        return f"{base.rstrip('/')}/{self.run_id}{mark}{query}"

    def opened(self) -> Entry:
        """The first line of the ledger; of a client killed before it wrote that, what the spec says instead.

        Raises StateFolderError when the record has neither.
        """
        first = last(self.ledger.entries(), "run", "intent")
        if first is not None:
            return first
        at = datetime.fromtimestamp(self.folder.stat().st_mtime, UTC)
        expires_at = (at + self.spec.lease).isoformat(timespec="seconds")
        told = {"name": self.spec.name, "target": self.spec.target.value, "expires_at": expires_at, "client": None}
        return Entry(at, "run", "intent", told)

    @property
    def expires_at(self) -> datetime:
        """When the lease ends."""
        return datetime.fromisoformat(self.opened().detail["expires_at"])

    def state(self) -> RunState:
        """Folds the ledger into one word."""
        return fold_state(self.ledger.entries())

    def write_json(self, path: Path, body: Any) -> None:
        """Writes a JSON file of the record so that a reader sees the old or the new one, never half."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(body, indent=2) + "\n")
        temporary.replace(path)

    @contextmanager
    def lock(self, wait_s: float, doing: str) -> Iterator[None]:
        """Holds the run for one who changes it. Raises RunBusyError when another holds it longer than `wait_s`."""
        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            raise RunBusyError(
                f"another dhctl is working on {self.run_id}; waited {wait_s:.0f} s to {doing}",
                f"`dhctl status {self.run_id}` shows what it does; try again when it is done",
            ) from error
        try:
            yield
        finally:
            lock.release()


def fold_state(entries: list[Entry]) -> RunState:
    """What the newest telling entry says; of a run that was once taken down, those of `down` alone.

    A client that followed the job may write its end after that of the run.
    """
    ends = [entry for entry in entries if entry.act == "down"]
    for entry in reversed(ends or entries):
        match entry.act, entry.phase:
            case "down", "intent":
                return RunState.STOPPING
            case "down", "done":
                return RunState.CLEAN if entry.detail.get("clean") else RunState.LEFTOVERS
            case "down", "failed":
                return RunState.LEFTOVERS
            case "job", "intent":
                return RunState.TRAINING
            case "head.recover", "intent":
                return RunState.RECOVERING
            case ("job", "done" | "failed") | ("up" | "head.recover", "done"):
                return RunState.UP
            case "up" | "head.recover", "failed":
                return RunState.FAILED
            case _:
                continue
    return RunState.STARTING


def open_record(
    home: Home, spec: RunSpec, version: str, client: dict[str, Any], given: RunSpec | None = None
) -> RunRecord:
    """Makes the record of a new run: the ledger's first line is on disk before anything else is made.

    `given` is the spec before admission changed it; only what its user said is kept of it.
    """
    home.prepare()
    record = RunRecord(home, new_run_id())
    started = datetime.now(UTC)
    with storage_errors(home.root):
        try:
            record.folder.mkdir(mode=0o700)
            (record.folder / "spec.json").write_text(spec.model_dump_json(indent=2) + "\n")
            said = (given or spec).model_dump_json(indent=2, exclude_unset=True, exclude_none=True)
            record.given_path.write_text(said + "\n")
            record.ledger.create()
            record.ledger.intent(
                "run",
                run=record.run_id,
                format=FORMAT,
                dhctl=version,
                name=spec.name,
                target=spec.target.value,
                expires_at=(started + spec.lease).isoformat(timespec="seconds"),
                client=client,
            )
        except OSError:
            shutil.rmtree(record.folder, ignore_errors=True)  # nothing was made yet: leave no half record
            raise
    return record


def all_records(home: Home) -> list[RunRecord]:
    """Records of all runs, newest first. Folders that are no run are passed over."""
    home.check_format()
    if not home.runs.is_dir():
        return []
    found = [RunRecord(home, p.name) for p in home.runs.iterdir() if RUN_ID.fullmatch(p.name)]
    return sorted((r for r in found if r.ledger.path.exists()), key=_opened_at, reverse=True)


def _opened_at(record: RunRecord) -> float:
    first = last(record.ledger.entries(), "run", "intent")
    return first.at.timestamp() if first else 0.0


def find_record(home: Home, wanted: str) -> RunRecord:
    """The run with this id, id prefix or name (the newest of that name). Raises UnknownRunError."""
    records = all_records(home)
    for record in records:
        if record.run_id == wanted:
            return record
    matches = [r for r in records if r.run_id.startswith(wanted) and len(wanted) >= 5]
    matches = matches if len(matches) == 1 else [r for r in records if _named(r, wanted)]
    if not matches:
        raise UnknownRunError(wanted, [r.run_id for r in records])
    living = [r for r in matches if r.state() is not RunState.CLEAN]
    return (living or matches)[0]


def _named(record: RunRecord, wanted: str) -> bool:
    first = last(record.ledger.entries(), "run", "intent")
    return first is not None and first.detail.get("name") == wanted
