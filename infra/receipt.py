"""The receipt: what was looked for after a run, where, and what was found. Clean only if every look was possible."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from dhctl.infra.errors import LeftoverError

NAMED = 5
"""Things left that an error names one by one; the receipt has them all."""


@dataclass(frozen=True)
class Leftover:
    """One thing of the run that is still there, and the command that removes it."""

    kind: str
    name: str
    remove_with: str
    reason: str = ""
    """Why it could not be deleted, in the target's own words, where it told."""

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.kind} {self.name} (`{self.remove_with}`)" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Check:
    """One place that was looked at. `unknown` says why the look was not possible."""

    place: str
    looked_for: str
    found: tuple[Leftover, ...] = ()
    unknown: str = ""

    @property
    def state(self) -> Literal["none", "left", "unknown"]:
        """What the look says."""
        if self.found:
            return "left"
        return "unknown" if self.unknown else "none"


@dataclass(frozen=True)
class Receipt:
    """The proof at a run's end."""

    run_id: str
    name: str
    target: str
    opened_at: str
    written_at: str
    reason: str
    checks: tuple[Check, ...]
    created: dict[str, int]
    remarks: tuple[str, ...] = ()
    """What was found out in its life about the place, in words; they have no part in the verdict."""

    @property
    def clean(self) -> bool:
        """Nothing is left, and that is known."""
        return bool(self.checks) and all(c.state == "none" for c in self.checks)

    @property
    def leftovers(self) -> list[Leftover]:
        """Everything that is left."""
        return [found for check in self.checks for found in check.found]

    def require_clean(self, cause: BaseException | None = None) -> None:
        """Raises LeftoverError, which names the first things left and how to remove them, when it is not clean."""
        if self.clean:
            return
        named = [found.text for found in self.leftovers[:NAMED]]
        if len(self.leftovers) > NAMED:
            named.append(f"{len(self.leftovers) - NAMED} more in the receipt")
        if not self.checks:
            named.append("nothing was looked at")
        named += [f"{check.place} could not be looked at: {check.unknown}" for check in self.checks if check.unknown]
        raise LeftoverError(
            f"{self.run_id} is not clean: {'; '.join(named)}", f"`dhctl down {self.run_id}` tries again"
        ) from cause

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the verdict first."""
        checks = [{**asdict(check), "state": check.state} for check in self.checks]
        return {"clean": self.clean, **asdict(self), "checks": checks}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Self:
        """What `to_dict` wrote."""
        fields = {k: v for k, v in body.items() if k not in ("clean", "checks", "remarks")}
        checks = tuple(
            Check(c["place"], c["looked_for"], tuple(Leftover(**f) for f in c["found"]), c["unknown"])
            for c in body["checks"]
        )
        remarks = tuple(body.get("remarks", ()))  # receipts of older versions have none
        return cls(checks=checks, remarks=remarks, **fields)


def now() -> str:
    """The time as receipts and ledgers write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
