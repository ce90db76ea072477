"""The head's own part of a run's journal, once its logs are in the record."""

from __future__ import annotations

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
