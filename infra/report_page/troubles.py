"""What went wrong or was warned of in a run, from all that its record holds, in the order of time where it is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page.acts import sentence
from dhctl.infra.report_page.files import number, read_object, read_rows
from dhctl.infra.report_page.jobs import JobStory
from dhctl.infra.report_page.nodes import NodeSpan
from dhctl.infra.report_page.words import plain
from dhctl.infra.spec import RunSpec

SHOWN = 100
"""Troubles that a page shows at most."""

EVENT_FILES = 50
_EVENTS = ("refused", "failed", "trouble", "ray", "api", "lease")
"""Kinds of a head's events that tell of trouble (infra/node/journal.py)."""


@dataclass(frozen=True)
class Trouble:
    """One sentence. `at` is None where the record does not tell when; `count` is how often it was said."""

    at: datetime | None
    source: str
    text: str
    count: int = 1


def troubles_of(
    record: RunRecord, spec: RunSpec | None, entries: Sequence[Entry], nodes: Sequence[NodeSpan], jobs: list[JobStory]
) -> list[Trouble]:
    """All of them, each sentence once."""
    found = [
        *_of_admission(record, spec),
        *_of_ledger(entries),
        *(Trouble(n.end, "worker", f"{n.name} {n.why}") for n in nodes if n.lost and not n.is_head),
        *_of_heads(record),
        *(Trouble(None, f"job {job.number}", plain(text)) for job in jobs for text in job.notices),
    ]
    return _merged(found)


def _of_admission(record: RunRecord, spec: RunSpec | None) -> Iterator[Trouble]:
    given = read_object(record.given_path) or {}
    workers = given.get("workers")
    asked = number(workers.get("max")) if isinstance(workers, dict) else None
    if spec and asked and asked > spec.workers.max:
        told = f"workers.max was lowered from {asked:.0f} to {spec.workers.max}: no more had room"
        yield Trouble(None, "admission", told)


def _of_ledger(entries: Sequence[Entry]) -> Iterator[Trouble]:
    for entry in entries:
        reason = sentence(str(entry.detail.get("reason", "")))
        if entry.phase == "failed":
            subject = entry.detail.get("node") or entry.detail.get("name") or ""
            told = f"{entry.act} {subject} failed".replace("  ", " ")
            yield Trouble(when(entry), "run", f"{told}: {reason}" if reason else told)
        elif (entry.act, entry.phase) == ("head.recover", "intent"):
            yield Trouble(when(entry), "head", reason or "the head was lost")


def _of_heads(record: RunRecord) -> Iterator[Trouble]:
    """What heads in a cloud wrote down, once their logs are in the record."""
    if not record.logs_dir.is_dir():
        return
    for path in sorted(record.logs_dir.rglob("events.jsonl"))[:EVENT_FILES]:
        for row in read_rows(path):
            at, reason = number(row.get("at")), row.get("reason")
            if row.get("kind") in _EVENTS and isinstance(reason, str):
                yield Trouble(_moment(at), "head", plain(reason))


def _moment(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _merged(found: Iterable[Trouble]) -> list[Trouble]:
    by_text: dict[tuple[str, str], Trouble] = {}
    for one in found:
        before = by_text.get((one.source, one.text))
        count = before.count + 1 if before else 1
        by_text[one.source, one.text] = Trouble(before.at if before else one.at, one.source, one.text, count)
    return sorted(by_text.values(), key=lambda t: (t.at is None, t.at or datetime.min.replace(tzinfo=UTC)))
