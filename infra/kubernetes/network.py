"""Whether a cluster enforces NetworkPolicy, as far as earlier runs of this home found it out: nothing else can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dhctl.infra.home import Home
from dhctl.infra.kubernetes.probe import NOTE
from dhctl.infra.ledger import last
from dhctl.infra.record import all_records
from dhctl.infra.spec import TargetName
from dhctl.infra.status import local_time
from dhctl.infra.target import Requirement

UNKNOWN = "not known before `up` tries it: many clusters accept policies and enforce none"
AGAIN = "set kubernetes.strict_network: false, and the next `up` tries it again"


@dataclass(frozen=True)
class NetworkFinding:
    """What a run's probe met. `open_doors`: pods outside the run reached Ray's ports, so nothing is enforced."""

    run_id: str
    at: str
    words: str
    enforced: bool
    open_doors: bool

    @property
    def text(self) -> str:
        """What was found, by whom and when."""
        return f"{self.words} (found by {self.run_id} on {local_time(self.at)})"


def newest_finding(home: Home, host: str) -> NetworkFinding | None:
    """The newest of this home on the cluster at `host`; None when no run has tried. Raises StateFolderError."""
    for record in all_records(home):
        entries = record.ledger.entries()
        opened = last(entries, "run", "intent")
        if opened is None or opened.detail.get("target") != TargetName.KUBERNETES.value:
            continue
        note = last(entries, NOTE, "note")
        if note and note.detail.get("host") == host:
            return _finding(record.run_id, note.at.isoformat(), note.detail)
    return None


def network_requirement(home: Home, host: str, *, strict: bool) -> Requirement:
    """A row of `plan`; a problem only where strictness is asked for and the cluster is known not to enforce."""
    found = newest_finding(home, host)
    need, told = "enforced" if strict else "told", found.text if found else UNKNOWN
    problem = f"kubernetes.strict_network is set, and {told}; {AGAIN}" if strict and found and found.open_doors else ""
    return Requirement("NetworkPolicy", need, told, problem)


def _finding(run_id: str, at: str, detail: Mapping[str, Any]) -> NetworkFinding:
    doors = "open" in dict(detail.get("doors") or {}).values()
    return NetworkFinding(run_id, at, str(detail.get("words", "")), bool(detail.get("enforced")), doors)
