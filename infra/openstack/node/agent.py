"""The agent of a node: keeps Ray running, and on the head what belongs to it. Standard library only.

Head: Ray's head, the autoscaler once Ray answers, the enrolment of workers, the lease guard. A head whose Ray died gets
a new one with a new id, and finds its workers again by the tables on disk. Worker: Ray's node and the lease guard. A
Ray node that had joined is not started again: the autoscaler never wants to see an id twice (ray#63424).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Protocol

from dhctl.infra.openstack.node.journal import NodeJournal
from dhctl.infra.openstack.node.layout import NodeFolder, read_json, write_json, write_whole
from dhctl.infra.openstack.node.ray_head import RayHead
from dhctl.infra.openstack.node.ray_worker import RayWorker
from dhctl.infra.openstack.node.settings import HEAD, NodeSettings
from dhctl.infra.openstack.node.site import NodeSite
from dhctl.infra.openstack.node.watched import Watched

TICK_S = 0.2


class Part(Protocol):
    """What the agent keeps running."""

    def keep(self) -> object:
        """Looks, and starts or stops what must be. Returns soon."""

    def end(self) -> None:
        """Stops it for good."""


class Agent:
    """The loop over all parts."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts, self._ending = parts, False

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then all parts end, the last one first."""

        def stop(_signum: int, _frame: object) -> None:
            self._ending = True

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
        while not self._ending:
            for part in self._parts:
                part.keep()
            time.sleep(TICK_S)
        for part in reversed(self._parts):
            part.end()


def parts_of(site: NodeSite) -> list[Part]:
    """What this node runs."""
    command = site.python_module("dhctl.infra.openstack.node.lease_guard")
    guard = Watched(command, site.own_env(), site.log("lease"), survives=True)
    if site.settings.role != HEAD:
        return [guard, RayWorker(site)]
    command = [*site.python_module("dhctl.infra.openstack.node.enrolment"), site.address]
    return [guard, Watched(command, site.own_env(), site.log("enrolment")), RayHead(site)]


def main() -> int:
    """Entry point."""
    folder = NodeFolder.here()
    folder.make()
    settings = NodeSettings.from_dict(read_json(folder.settings))
    secrets: dict[str, Any] = read_json(folder.secrets)
    write_json(folder.agent, {"state": "starting", "pid": os.getpid()}, 0o644)
    if not secrets.get("token"):
        reason = "secrets.json holds no token; this is a fault of dhctl"
        write_json(folder.agent, {"state": "failed", "reason": reason}, 0o644)
        return 1
    write_whole(folder.token, secrets["token"].encode())
    site = NodeSite(settings, folder, NodeJournal(folder), secrets.get("env") or {})
    Agent(parts_of(site)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
