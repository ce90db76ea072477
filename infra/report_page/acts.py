"""The ledger as spans of time: what began, when it ended, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry
from dhctl.infra.report_page.words import plain


class Ending(StrEnum):
    """How a span ended."""

    DONE = "done"
    FAILED = "failed"
    BROKEN_OFF = "broken off"
    """Its end is not in the ledger: whoever did it was killed."""
    OPEN = "going on"


@dataclass(frozen=True)
class Span:
    """One thing that took time. `end` is when the page was made where it goes on still."""

    name: str
    begin: datetime
    end: datetime
    ending: Ending
    detail: str = ""
    """What more is known, for people: a reason, a status."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.begin).total_seconds()


_CLASS = re.compile(r"^[A-Za-z_]\w*(Error|Exception): ")


def sentence(reason: str) -> str:
    """A reason of the ledger for people: one line, without the name of the exception's class."""
    return plain(_CLASS.sub("", " ".join(reason.split())))


def spans(entries: Iterable[Entry], act: str, until: datetime, living: bool) -> list[Span]:
    """Every time that `act` was done. One without an end ended when the next began, else `until`."""
    found: list[Span] = []
    begun: Entry | None = None
    for entry in (e for e in entries if e.act == act):
        if entry.phase == "intent":
            if begun:
                found.append(Span(act, when(begun), when(entry), Ending.BROKEN_OFF))
            begun = entry
        elif begun and entry.phase in ("done", "failed"):
            reason = str(entry.detail.get("reason", ""))
            found.append(Span(act, when(begun), when(entry), Ending(entry.phase), reason))
            begun = None
    if begun:
        found.append(Span(act, when(begun), max(until, when(begun)), Ending.OPEN if living else Ending.BROKEN_OFF))
    return found
