"""What went wrong where neither Pulumi nor Ray tells it: servers in error with nova's reason, the head's events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dhctl.infra import ssh
from dhctl.infra.errors import DhctlError
from dhctl.infra.node.layout import HOME
from dhctl.infra.openstack.cloud import RAISED
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.mark import Mark
from dhctl.infra.ssh import SshEndpoint

EVENTS = f"{HOME}/log/events.jsonl"
TELLING = ("refused", "failed", "trouble")
READ_S = 20.0
NEWEST = 3


def of_servers(project: Project, run_id: str) -> list[str]:
    """A sentence for each server of the run that is in error. Silent where nova does not answer: this only explains."""
    try:
        return list(_faults(project, run_id))
    except RAISED:
        return []


def _faults(project: Project, run_id: str) -> Iterator[str]:
    for server in project.connection.compute.servers(details=True):
        mark = Mark.from_metadata(server.metadata)
        if mark and mark.run_id == run_id and server.status == "ERROR":
            reason = (server.fault or {}).get("message") or "nova gives no reason"
            yield f"server {server.name} is in ERROR: {reason}"


def of_workers(head: SshEndpoint) -> list[str]:
    """What the head's autoscaler told newest of workers that did not come, each once; empty where it is unreachable."""
    try:
        done = ssh.run(head, ["sudo", "-n", "tail", "-n", "200", EVENTS], None, READ_S)
    except DhctlError:
        return []
    told = dict.fromkeys(filter(None, map(_sentence, done.stdout.decode(errors="replace").splitlines())))
    return list(told)[-NEWEST:]


def _sentence(line: str) -> str:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return ""
    return str(event.get("reason", "")) if event.get("kind") in TELLING else ""
