"""Where the files of a node lie, and its ports. Standard library only, also for the system's Python.

/var/lib/dhctl/token          0600, Ray's           log/   what may be copied to the run's record:
               autoscaling.json                              ledger.jsonl, events.jsonl, agent.json, *.log
               stopping       there: no new worker  gcs/   Ray's tables, so that a new head finds its workers
                                                    ray/   Ray's temp-dir
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self  # the system's Python may be older

HOME, HOME_ENV = "/var/lib/dhctl", "DHCTL_NODE_HOME"
CODE_FOLDER = "/opt/dhctl-code"
GCS_PORT, DASHBOARD_PORT, CLIENT_PORT = 6379, 8265, 10001
RAYLET_PORT = 20002
WORKER_PORTS = (20100, 20999)
AGENT_PORTS = {
    "--node-manager-port": RAYLET_PORT,
    "--object-manager-port": 20003,
    "--dashboard-agent-listen-port": 20004,
    "--dashboard-agent-grpc-port": 20005,
    "--runtime-env-agent-port": 20006,
    "--metrics-export-port": 20007,
}
"""Given, because a raylet waits at most 15 s for agents that choose their own (ray#65983)."""


@dataclass(frozen=True)
class NodeFolder:
    """The folder of a node."""

    path: Path

    @classmethod
    def here(cls) -> Self:
        """This node's."""
        return cls(Path(os.environ.get(HOME_ENV, HOME)))

    @property
    def token(self) -> Path:
        """Ray's token."""
        return self.path / "token"

    @property
    def autoscaling(self) -> Path:
        """The autoscaler's configuration."""
        return self.path / "autoscaling.json"

    @property
    def stopping(self) -> Path:
        """While it is there, nothing new may start."""
        return self.path / "stopping"

    @property
    def gcs(self) -> Path:
        """Tables of Ray's head."""
        return self.path / "gcs"

    @property
    def ray_temp(self) -> Path:
        """Ray's temp-dir; on disk, because /tmp may be memory."""
        return self.path / "ray"

    @property
    def logs(self) -> Path:
        """What may be copied to the run's record; no secret in it."""
        return self.path / "log"

    @property
    def ledger(self) -> Path:
        """The node's part of the run's journal."""
        return self.logs / "ledger.jsonl"

    @property
    def events(self) -> Path:
        """What the client may tell its user."""
        return self.logs / "events.jsonl"

    @property
    def agent(self) -> Path:
        """How far the agent is."""
        return self.logs / "agent.json"

    def make(self) -> None:
        """Makes the folders."""
        self.path.mkdir(parents=True, exist_ok=True)
        for open_one in (self.logs, self.ray_temp, self.gcs):
            open_one.mkdir(exist_ok=True)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file whole or not at all; nobody but its owner reads it on the way."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    os.replace(temporary, path)  # noqa: PTH105 - one call, on Pythons of any age


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file; empty when there is none, or no whole one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, body: Mapping[str, Any], mode: int = 0o600) -> None:
    """Writes a JSON object whole or not at all."""
    write_whole(path, json.dumps(body).encode(), mode)
