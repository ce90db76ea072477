"""The jobs of a run as its ledger tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhctl.infra.ledger import Entry


@dataclass(frozen=True)
class JobEntries:
    """One job's begin, and what the ledger told last of its end: None of one that runs, or whose end nobody saw."""

    number: int
    begun: Entry
    ended: Entry | None

    @property
    def status(self) -> str:
        """Ray's word for its end; FAILED where the end is a failure without one, "" where there is no end."""
        if self.ended is None:
            return ""
        return str(self.ended.detail.get("status") or ("FAILED" if self.ended.phase == "failed" else ""))


def job_entries(entries: Sequence[Entry]) -> list[JobEntries]:
    """All jobs of a run, oldest first; what names no number is passed over."""
    of_jobs = [e for e in entries if e.act == "job" and isinstance(e.detail.get("number"), int)]
    ends = {e.detail["number"]: e for e in of_jobs if e.phase != "intent"}
    begun = [(e.detail["number"], e) for e in of_jobs if e.phase == "intent"]
    return [JobEntries(number, entry, ends.get(number)) for number, entry in begun]
