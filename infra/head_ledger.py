"""What a run's journal tells of its head: the head's own part, and whether it makes workers no more."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dhctl.infra.ledger import Entry, Ledger
from dhctl.infra.record import RunRecord


def adopt_ledger(record: RunRecord) -> None:
    """Writes what the head made and ended on its own into the run's ledger, once."""
    told = Ledger(record.logs_dir / "ledger.jsonl").entries()
    seen = {(e.act, e.phase, e.detail.get("node")) for e in record.ledger.entries() if e.detail.get("by") == "head"}
    for entry in told:
        key = (entry.act, entry.phase, entry.detail.get("node"))
        if key not in seen:
            seen.add(key)
            record.ledger.note(
                entry.act, entry.phase, **{**entry.detail, "by": "head", "at_head": entry.at.isoformat()}
            )


def when(entry: Entry) -> datetime:
    """When it happened: a head's own lines come into the run's ledger later, and tell their time themselves."""
    told = entry.detail.get("at_head")
    try:
        return datetime.fromisoformat(told) if isinstance(told, str) else entry.at
    except ValueError:
        return entry.at


def autoscaler_is_stopped(entries: Iterable[Entry]) -> bool:
    """Whether the newest head makes workers no more: a stop is for good, but a head that replaced it has another
    autoscaler.
    """
    turns = [e for e in entries if e.act == "stack.up" or (e.act, e.phase) == ("autoscaler.stop", "done")]
    return bool(turns) and turns[-1].act == "autoscaler.stop"
