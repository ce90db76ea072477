"""Runs as the lists of a cloud or cluster tell of them, by mark and expiry alone, without a record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from dhctl.infra.errors import UnknownRunError
from dhctl.infra.receipt import Check


class Marked(Protocol):
    """One thing that carries the mark."""

    @property
    def kind(self) -> str:
        """For people."""

    @property
    def id(self) -> str:
        """The place's own id."""

    @property
    def name(self) -> str:
        """Its name."""


@dataclass(frozen=True)
class MarkedRun:
    """A run of which something is there. `checks` are there when it was ended."""

    run_id: str
    expires_at: int
    owned: Sequence[Marked]
    checks: tuple[Check, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Ended, looked for again, and nothing found."""
        return bool(self.checks) and all(check.state == "none" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        ends = datetime.fromtimestamp(self.expires_at, UTC).isoformat() if self.expires_at else None
        had = [{"kind": o.kind, "id": o.id, "name": o.name} for o in self.owned]
        left = [asdict(leftover) for check in self.checks for leftover in check.found]
        unknown = {check.place: check.unknown for check in self.checks if check.unknown}
        return {
            "run": self.run_id,
            "lease_ends": ends,
            "had": had,
            "ended": bool(self.checks),
            "clean": self.clean,
            "left": left,
            "unknown": unknown,
        }


def past_lease(runs: Iterable[MarkedRun], run_id: str | None = None) -> list[MarkedRun]:
    """Runs past their lease; with `run_id` that one, past it or not.

    A run of which only things are left that tell no expiry is not past it: nobody knows. Raises UnknownRunError.
    """
    found = list(runs)
    if run_id is None:
        return [run for run in found if 0 < run.expires_at < time.time()]
    named = [run for run in found if run.run_id == run_id]
    if not named:
        raise UnknownRunError(run_id, [run.run_id for run in found])
    return named
