"""What is known of a run now: its ledger's word, and what Ray and the leases say."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dhctl.infra.errors import ClusterError, DhctlError, NotUpError, StateFolderError
from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.receipt import Receipt
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.target import Target
from dhctl.infra.units import format_duration

TIME = "%Y-%m-%d %H:%M:%S"
TROUBLES_S = 20.0
"""How long a place may take to tell what went wrong; all else is told without it."""

LIVING = (RunState.UP, RunState.TRAINING, RunState.RECOVERING)


@dataclass(frozen=True)
class Status:
    """One run. `workers` is None when Ray cannot be asked; `dashboard_url` is None when there is none."""

    record: RunRecord
    state: RunState
    workers: int | None
    dashboard_url: str | None
    token_file: str
    result: dict[str, Any] | None
    receipt: Receipt | None
    troubles: list[str] = field(default_factory=list)
    """What the target says went wrong, newest last; none of a run that is over."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **summary(self.record),
            "workers": self.workers,
            "dashboard_url": self.dashboard_url,
            "troubles": self.troubles,
            "job": self.result,
            "record": str(self.record.folder),
            "receipt": self.receipt.to_dict() if self.receipt else None,
        }

    def rows(self) -> list[tuple[str, str]]:
        """For a table of two columns."""
        known = summary(self.record)
        rows = [(key, str(known[key])) for key in ("run", "name", "target", "state")]
        rows.append(("started", local_time(known["started"])))
        left = self.record.expires_at - datetime.now(UTC)
        gone = self.state is RunState.CLEAN
        ends = f" (in {format_duration(left)})" if left.total_seconds() > 0 and not gone else ""
        rows.append(("lease ends", local_time(known["lease_ends"]) + ends))
        if self.dashboard_url:
            rows.append(("dashboard", f"{self.dashboard_url} (it asks for the token, in {self.token_file})"))
        if not gone:
            rows.append(("workers", "Ray does not answer" if self.workers is None else str(self.workers)))
        rows += [("trouble", sentence) for sentence in self.troubles]
        if self.result:
            rows.append(("job", f"{self.result['status']} in {self.result['seconds']:.0f} s"))
        return [*rows, ("record", str(self.record.folder))]


def summary(record: RunRecord) -> dict[str, Any]:
    """One run in a line, from its ledger alone. Times are UTC, ISO 8601."""
    try:
        opened, expires_at = record.opened(), record.expires_at
    except StateFolderError:
        return {
            **dict.fromkeys(("name", "target", "started", "lease_ends"), None),
            "run": record.run_id,
            "state": "damaged",
        }
    return {
        "run": record.run_id,
        "name": opened.detail["name"],
        "target": opened.detail["target"],
        "state": record.state().value,
        "started": opened.at.isoformat(timespec="seconds"),
        "lease_ends": expires_at.isoformat(timespec="seconds"),
    }


def local_time(told: str | None) -> str:
    """An ISO time as a person reads it here."""
    if told is None:
        return "?"
    return datetime.fromisoformat(told).astimezone().strftime(TIME)


def look(record: RunRecord, target: Target) -> Status:
    """Asks everyone who may know."""
    workers, url, token_file = None, None, ""
    try:
        with target.connect(record) as connection:
            url, token_file = connection.dashboard_url, connection.token_file
            workers = len(alive_nodes(connection)) - 1
    except (NotUpError, ClusterError):
        workers = None  # told as "does not answer"
    result_path = record.job_dir(record.last_job()) / "result.json"
    result = json.loads(result_path.read_text()) if result_path.exists() else None
    receipt_path = record.receipt_path
    receipt = Receipt.from_dict(json.loads(receipt_path.read_text())) if receipt_path.exists() else None
    state = record.state()
    troubles = troubles_of(record, target) if state in LIVING else []
    return Status(record, state, workers, url, token_file, result, receipt, troubles)


def troubles_of(record: RunRecord, target: Target) -> list[str]:
    """The target's sentences; one on why there are none where the place does not answer in time."""
    found: list[list[str]] = []

    def ask() -> None:
        try:
            found.append(target.troubles(record))
        except DhctlError as error:  # such as credentials that are gone
            found.append([f"what went wrong cannot be told: {error}"])

    asking = threading.Thread(target=ask, daemon=True)  # one that hangs does not keep the command from its end
    asking.start()
    asking.join(TROUBLES_S)
    return found[0] if found else [f"what went wrong is not known: nobody answered within {TROUBLES_S:g} s"]
