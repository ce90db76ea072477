"""The servers of one run as nodes see them. Standard library only: processes that mostly sleep load nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from dhctl.infra.node.fleet import WorkerApiError
from dhctl.infra.openstack.mark import NODE_KEY, ROLE_KEY

GONE = ("DELETED", "SOFT_DELETED")
LAUNCH_KEY = "dhctl_launch"
"""Metadata of a worker: which request of the autoscaler it answers."""


class ComputeError(WorkerApiError):
    """Nova or keystone refused, failed or did not answer."""


@dataclass(frozen=True)
class Server:
    """One server of the run as nova shows it."""

    id: str
    name: str
    role: str
    status: str
    created_at: float
    """Epoch seconds by the cloud's clock."""
    ending: bool = False
    """Whether its deletion is under way."""
    address: str = ""
    launch: str = ""

    @property
    def up(self) -> bool:
        """Whether it runs, with Ray or still without."""
        return self.status == "ACTIVE"


class Compute(Protocol):
    """What node provider and lease guard need of a cloud. All raise ComputeError."""

    def servers(self) -> list[Server]:
        """All servers that carry the run's mark, by their metadata."""

    def fault(self, server_id: str) -> str:
        """Why a server is in ERROR, in nova's words; empty where it does not tell."""

    def create(self, body: Mapping[str, Any]) -> str:
        """Asks for one server; its id."""

    def delete(self, server_id: str) -> None:
        """Asks for the deletion of one server; silent when it is gone."""

    def launch_problem(self, vcpus: int, ram_mib: int) -> str:
        """A sentence when the quota does not take one more server of this size."""


def server_of(body: Mapping[str, Any]) -> Server:
    """Nova's JSON of one server."""
    metadata = body.get("metadata") or {}
    addresses = [a["addr"] for network in (body.get("addresses") or {}).values() for a in network if _fixed(a)]
    status = str(body.get("status", ""))
    return Server(
        id=str(body["id"]),
        name=str(metadata.get(NODE_KEY) or body.get("name", "")),
        role=str(metadata.get(ROLE_KEY, "")),
        status=status,
        created_at=_epoch(str(body.get("created", ""))),
        ending=status in GONE or body.get("OS-EXT-STS:task_state") == "deleting",
        address=str(addresses[0]) if addresses else "",
        launch=str(metadata.get(LAUNCH_KEY, "")),
    )


def _fixed(address: Mapping[str, Any]) -> bool:
    return bool(address.get("OS-EXT-IPS:type", "fixed") == "fixed" and address.get("version", 4) == 4)


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
