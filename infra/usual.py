"""How long the phases of a run usually take: from this machine's own ledgers, else from measured reference runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import median

from dhctl.infra.home import Home
from dhctl.infra.ledger import Entry
from dhctl.infra.record import all_records
from dhctl.infra.spec import RunSpec, TargetName

REFERENCE_S = {
    TargetName.LOCAL: {"up": 10.0, "down": 3.0},
    TargetName.OPENSTACK: {"up": 60.0, "down": 30.0},
    TargetName.KUBERNETES: {"up": 40.0, "down": 20.0},
}
"""Measured on two cores (docs/benchmarks.md); a job's time depends on the job, so there is no reference for it."""

NEWEST_RUNS = 20


@dataclass(frozen=True)
class Usual:
    """A phase's usual duration; None when nothing is known."""

    phase: str
    seconds: float | None
    source: str

    @property
    def text(self) -> str:
        """For people."""
        return "not known yet" if self.seconds is None else f"{self.seconds:.0f} s"


def usual_durations(home: Home, spec: RunSpec) -> list[Usual]:
    """Medians over the newest runs of the same target, for the job of the same name."""
    seen: dict[str, list[float]] = {"up": [], "job": [], "down": []}
    for record in islice(all_records(home), NEWEST_RUNS):
        entries = record.ledger.entries()
        opened = next((e for e in entries if e.act == "run"), None)
        if opened is None or opened.detail.get("target") != spec.target.value:
            continue
        for phase, seconds in _durations(entries):
            if phase != "job" or opened.detail.get("name") == spec.name:
                seen[phase].append(seconds)
    return [_usual(phase, found, REFERENCE_S[spec.target]) for phase, found in seen.items()]


def _durations(entries: list[Entry]) -> Iterator[tuple[str, float]]:
    begun: dict[str, Entry] = {}
    for entry in entries:
        if entry.act not in ("up", "job", "down"):
            continue
        if entry.phase == "intent":
            begun[entry.act] = entry
        elif entry.phase == "done" and entry.act in begun:
            yield entry.act, (entry.at - begun.pop(entry.act).at).total_seconds()


def _usual(phase: str, found: list[float], reference_s: Mapping[str, float]) -> Usual:
    if found:
        return Usual(phase, round(median(found), 1), f"{len(found)} earlier runs here")
    if phase in reference_s:
        return Usual(phase, reference_s[phase], "reference runs on two cores")
    return Usual(phase, None, "no earlier run of this name here")
