"""Driving `dhctl` against the testbed, and looking at the project afterwards without trusting it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from openstack.connection import Connection

from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.record import RunRecord
from dhctl.stacks.targets import target_for
from e2e.driver import JOBS, Dhctl
from testbeds.openstack.leftovers import leftovers

SECTION = {
    "image": "host",
    "user": "debian",
    "flavor": "m1.small",
    "external_network": "public",
    "ssh_from": ["172.24.4.0/24"],
    "python": sys.executable,
}
"""The testbed's image is this machine's own root file system: the interpreter is there at the same path."""


@dataclass
class CloudRuns(Dhctl):
    """The command, with a bucket for its results."""

    bucket: str = ""

    def spec(self, script: str, **changes: Any) -> str:
        """Writes a spec of target openstack for one of the small jobs in tests/e2e/jobs; its name."""
        body = {
            "name": script,
            "target": "openstack",
            "lease": "20m",
            "workers": {"min": 0, "max": 2, "memory": "512MiB", "idle_timeout": "8s"},
            "job": {"folder": str(JOBS), "entrypoint": f"python {script}.py"},
            "output": f"{self.bucket}/{self.folder.name}",
            **changes,
            "openstack": {**SECTION, **changes.get("openstack", {})},
        }
        (self.folder / f"{script}.json").write_text(json.dumps(body))  # JSON is YAML
        return f"{script}.json"


def workers(record: RunRecord) -> int:
    """Workers alive in Ray's view, through a tunnel of our own."""
    with target_for(record.spec.target).connect(record) as connection:
        return len(alive_nodes(connection)) - 1


def assert_nothing_marked(user: Connection, run_ids: list[str]) -> None:
    """Nothing in the project bears the name of one of these runs; the listing is the tests' own."""
    found = leftovers(user)
    assert [line for line in found if any(run_id in line for run_id in run_ids)] == []
    # a floating IP has no name but its address
    tagged = [a for a in user.network.ips() if any(f"dhctl-run={r}" in (a.tags or []) for r in run_ids)]
    assert tagged == []
