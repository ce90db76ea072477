"""The agent of a node: keeps Ray running, and on the head what belongs to it. Standard library only.

Head: Ray's head, the autoscaler once Ray answers, the enrolment of workers, the lease guard. A head whose Ray died gets
a new one with a new id, and finds its workers again by the tables on disk. Worker: Ray's node and the lease guard. A
Ray node that had joined is not started again: the autoscaler never wants to see an id twice (ray#63424).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from dhctl.infra.node.agent import Agent, Part
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json, write_json, write_whole
from dhctl.infra.node.ray_head import RayHead
from dhctl.infra.node.watched import Watched
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.ray_worker import RayWorker
from dhctl.infra.openstack.node.settings import HEAD, NodeSettings
from dhctl.infra.openstack.node.site import ServerSite

PROVIDER = "dhctl.infra.openstack.node.node_provider.OpenStackNodeProvider"


def parts_of(site: ServerSite) -> list[Part]:
    """What this node runs."""
    command = site.python_module("dhctl.infra.openstack.node.lease_guard")
    guard = Watched(command, site.own_env(), site.log("lease"), survives=True)
    if site.settings.role != HEAD:
        return [guard, RayWorker(site)]
    command = [*site.python_module("dhctl.infra.openstack.node.enrolment"), site.address]
    return [guard, Watched(command, site.own_env(), site.log("enrolment")), RayHead(site, {"module": PROVIDER})]


def main() -> int:
    """Entry point."""
    folder = ServerFolder.here()
    folder.make()
    settings = NodeSettings.from_dict(read_json(folder.settings))
    secrets: dict[str, Any] = read_json(folder.secrets)
    write_json(folder.agent, {"state": "starting", "pid": os.getpid()}, 0o644)
    if not secrets.get("token"):
        reason = "secrets.json holds no token; this is a fault of dhctl"
        write_json(folder.agent, {"state": "failed", "reason": reason}, 0o644)
        return 1
    write_whole(folder.token, secrets["token"].encode())
    site = ServerSite(settings, folder, NodeJournal(folder), secrets.get("env") or {})
    Agent(parts_of(site)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
