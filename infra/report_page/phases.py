"""The parts of a run's life as rows of the timeline: up and its steps, jobs, heads that were replaced, down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry, until_gone
from dhctl.infra.record import RunState, fold_state
from dhctl.infra.report_page.acts import Ending, Span, spans

STEPS = {
    "stack.up": "stack",
    "head.boot": "head boots",
    "head.ray": "Ray starts",
}
"""Steps of `up` that the ledger tells, in their order, and what people call them."""

CHECKS = "doors, kept workers"
"""The rest of `up`: Ray refuses strangers, and workers that are always kept have joined."""

OVER = (RunState.CLEAN, RunState.LEFTOVERS)


@dataclass(frozen=True)
class Life:
    """From when to when a run lived, and its parts."""

    begin: datetime
    end: datetime
    """When it was gone; of a run that lives, when the page was made, or its lease ended."""
    living: bool
    phases: tuple[Span, ...]
    steps: tuple[Span, ...]
    """Of `up`."""

    @property
    def seconds(self) -> float:
        """How long."""
        return (self.end - self.begin).total_seconds()


def life_of(entries: Sequence[Entry], opened: datetime, expires_at: datetime, now: datetime) -> Life:
    """Reads the journal of a run. Looks at a run that was gone already have no part in its life."""
    own = until_gone(entries)
    living = fold_state(list(own)) not in OVER
    last_told = max([opened, *(when(e) for e in own)])
    end = max(last_told, min(now, expires_at)) if living else last_told
    found = [
        *_cut(spans(own, "up", end, living), own),
        *_jobs(own, end, living),
        *(replace(s, name="new head") for s in spans(own, "head.recover", end, living)),
        *spans(own, "down", end, living),
    ]
    ups = [s for s in found if s.name == "up"]
    return Life(opened, end, living, tuple(sorted(found, key=lambda s: s.begin)), tuple(_steps(own, ups, end, living)))


def _cut(found: list[Span], entries: Sequence[Entry]) -> list[Span]:
    """What was broken off ended at the latest when somebody began to take the run down."""
    downs = [when(e) for e in entries if e.act == "down" and e.phase == "intent"]
    return [
        replace(s, end=min([d for d in downs if d >= s.begin] + [s.end]), ending=Ending.BROKEN_OFF)
        if s.ending in (Ending.OPEN, Ending.BROKEN_OFF) and any(s.begin <= d < s.end for d in downs)
        else s
        for s in found
    ]


def _jobs(entries: Sequence[Entry], end: datetime, living: bool) -> list[Span]:
    """Each job by its number, with the status that Ray gave it."""
    found = []
    for number in dict.fromkeys(e.detail.get("number") for e in entries if e.act == "job"):
        own = [e for e in entries if e.act == "job" and e.detail.get("number") == number]
        for span in _cut(spans(own, "job", end, living), entries):
            status = str(own[-1].detail.get("status", "")) if span.ending is Ending.DONE else ""
            failed = status not in ("", "SUCCEEDED")
            ending = Ending.FAILED if failed else span.ending
            found.append(replace(span, name=f"job {number}", ending=ending, detail=status or span.detail))
    return found


def _steps(entries: Sequence[Entry], ups: list[Span], end: datetime, living: bool) -> list[Span]:
    """Within `up`; the last one is what is left of it after the steps that the ledger tells."""
    if not ups:
        return []
    up = ups[0]
    found = []
    for act, name in STEPS.items():
        told = [s for s in _cut(spans(entries, act, end, living), entries) if up.begin <= s.begin <= up.end]
        found += [replace(s, name=name) for s in told[:1]]
    rest = max([s.end for s in found], default=up.begin)
    whole = found and all(s.ending is Ending.DONE for s in found)
    if whole and (up.end - rest).total_seconds() > 0.05:
        found.append(Span(CHECKS, rest, up.end, up.ending, up.detail))
    return found
