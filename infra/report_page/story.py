"""Everything that the page tells of a run, read once from its record. What is missing is said, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dhctl.infra.errors import StateFolderError
from dhctl.infra.ledger import Entry, last
from dhctl.infra.receipt import Receipt
from dhctl.infra.record import RunRecord, RunState, fold_state
from dhctl.infra.report_page.files import read_object
from dhctl.infra.report_page.jobs import JobStory, jobs_of
from dhctl.infra.report_page.nodes import NodeSpan, nodes_of
from dhctl.infra.report_page.phases import Life, life_of
from dhctl.infra.report_page.troubles import Trouble, troubles_of
from dhctl.infra.report_page.usage import Usage, usage_of
from dhctl.infra.spec import RunSpec

UNKNOWN_LEASE = timedelta(days=1)


@dataclass(frozen=True)
class RunStory:
    """One run, for readers. `spec` and `receipt` are None where the record has none that can be read."""

    run_id: str
    name: str
    target: str
    state: RunState
    version: str
    """Of the dhctl that made the run."""
    written_at: datetime
    """When this was read."""
    reason: str
    """Why it was taken down; "" while it lives."""
    life: Life
    nodes: list[NodeSpan]
    jobs: list[JobStory]
    usage: list[Usage]
    troubles: list[Trouble]
    receipt: Receipt | None
    spec: RunSpec | None
    given: Mapping[str, Any]
    """The spec as its user gave it, else as admitted, as plain values."""
    given_by_user: bool
    """Whether it is as given: older runs have it only as admitted, with all defaults."""
    data: Mapping[str, Any]
    """The digest of the input; empty where none was taken."""
    images: list[tuple[str, str]]
    """Container images of the head by digest, where the target tells them."""
    missing: list[str]
    """Sentences on what the record does not hold, or holds damaged."""

    @property
    def job(self) -> JobStory | None:
        """The newest one."""
        return self.jobs[-1] if self.jobs else None


def read_story(record: RunRecord, now: datetime) -> RunStory:
    """Reads a record, whatever state it is in. Raises StateFolderError when it has neither ledger nor spec."""
    missing: list[str] = []
    spec, entries = _spec(record, missing), record.ledger.entries()
    opened = record.opened()
    life = life_of(entries, opened.at, _expires_at(opened), now)
    nodes, jobs = nodes_of(entries, life), jobs_of(record, entries)
    digest, given = last(entries, "data.digest"), read_object(record.given_path)
    return RunStory(
        run_id=record.run_id,
        name=str(opened.detail.get("name", "")),
        target=str(opened.detail.get("target", "")),
        state=fold_state(entries),
        version=str(opened.detail.get("dhctl", "")),
        written_at=now,
        reason=_reason(entries),
        life=life,
        nodes=nodes,
        jobs=jobs,
        usage=usage_of(nodes, spec),
        troubles=troubles_of(record, spec, entries, nodes, jobs),
        receipt=_receipt(record, missing),
        spec=spec,
        given=given or read_object(record.folder / "spec.json") or {},
        given_by_user=bool(given),
        data=digest.detail if digest else {},
        images=_images(entries),
        missing=[*missing, *_damaged(record, jobs)],
    )


def _spec(record: RunRecord, missing: list[str]) -> RunSpec | None:
    try:
        return record.spec
    except StateFolderError:
        missing.append(
            "The spec of this run cannot be read, or another version of dhctl wrote it: sizes are not known."
        )
        return None


def _receipt(record: RunRecord, missing: list[str]) -> Receipt | None:
    if not record.receipt_path.exists():
        return None
    try:
        return Receipt.from_dict(json.loads(record.receipt_path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        missing.append("The receipt cannot be read.")
        return None


def _reason(entries: list[Entry]) -> str:
    """That of the first `down`: a later look at a run that is gone does not change it."""
    return next((str(e.detail.get("reason", "")) for e in entries if e.act == "down" and e.phase == "intent"), "")


def _expires_at(opened: Entry) -> datetime:
    try:
        return datetime.fromisoformat(opened.detail["expires_at"])
    except (KeyError, TypeError, ValueError):
        return opened.at + UNKNOWN_LEASE


def _images(entries: list[Entry]) -> list[tuple[str, str]]:
    told = {str(e.detail.get("name", "")): str(e.detail.get("digest", "")) for e in entries if e.act == "image"}
    return [(name, digest) for name, digest in told.items() if digest]


def _damaged(record: RunRecord, jobs: list[JobStory]) -> list[str]:
    """Files of jobs that are there and say nothing."""
    names = ("result.json", "environment.json")
    files = [record.job_dir(job.number) / name for job in jobs for name in names]
    return [f"{_within(record, path)} cannot be read." for path in files if path.exists() and not read_object(path)]


def _within(record: RunRecord, path: Path) -> str:
    return str(path.relative_to(record.folder))
