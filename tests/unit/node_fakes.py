"""Small real stand-ins for a node of an OpenStack run: its folder, its settings, nova."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dhctl.infra.node.layout import write_json
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.servers import ComputeError, Server
from dhctl.infra.openstack.node.settings import NodeSettings

RUN_ID = "dh-aaaabbbbcc"
HEAD_NAME = f"{RUN_ID}-head"


def make_node_settings(**changes: Any) -> NodeSettings:
    """Settings of a head whose lease is far away."""
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "name": "trial",
        "role": "head",
        "node_id": HEAD_NAME,
        "expires_at": 4_000_000_000,
        "ray_version": "2.60.0",
        "max_workers": 2,
        "image_id": "image",
        "flavor_id": "flavor",
        "flavor_vcpus": 2,
        "flavor_ram_mib": 4096,
        "network_id": "network",
        "security_group_ids": ("members",),
        "key_name": f"{RUN_ID}-key",
    }
    return NodeSettings(**{**values, **changes})


def make_node_folder(path: Path, settings: NodeSettings | None = None) -> ServerFolder:
    """A node's folder as the boot leaves it."""
    folder = ServerFolder(path)
    folder.make()
    write_json(folder.settings, (settings or make_node_settings()).to_dict())
    write_json(folder.secrets, {"token": "t" * 64, "credential": {}, "env": {"AWS_PROFILE": "lab"}})
    folder.code.write_bytes(b"code")
    folder.token.write_text("t" * 64)
    return folder


def told_by(folder: ServerFolder) -> list[dict[str, Any]]:
    """A node's events."""
    lines = folder.events.read_text().splitlines() if folder.events.exists() else []
    return [json.loads(line) for line in lines]


class FakeNova:
    """Servers in a dictionary. Faults are set by the test: `down` fails all calls, `refuse` the next creations."""

    def __init__(self) -> None:
        self.by_id: dict[str, Server] = {}
        self.bodies: list[Mapping[str, Any]] = []
        self.deleted: list[str] = []
        self.faults: dict[str, str] = {}
        self.down: ComputeError | None = None
        self.refuse: ComputeError | None = None
        self.keep: ComputeError | None = None
        self.quota = ""
        self.hold = threading.Event()
        self.hold.set()

    def add(self, name: str, role: str = "worker", status: str = "ACTIVE", **changes: Any) -> Server:
        server = Server(f"id-of-{name}", name, role, status, time.time(), **changes)
        self.by_id[server.id] = server
        return server

    def change(self, name: str, **changes: Any) -> None:
        self.by_id[f"id-of-{name}"] = replace(self.by_id[f"id-of-{name}"], **changes)

    def names(self) -> list[str]:
        return [server.name for server in self.by_id.values()]

    def servers(self) -> list[Server]:
        if self.down:
            raise self.down
        return list(self.by_id.values())

    def fault(self, server_id: str) -> str:
        if self.down:
            raise self.down
        return self.faults.get(server_id, "")

    def create(self, body: Mapping[str, Any]) -> str:
        self.bodies.append(body)
        assert self.hold.wait(5)
        if self.refuse or self.down:
            raise self.refuse or self.down or AssertionError
        asked = body["server"]
        server = self.add(asked["name"], status="BUILD", launch=asked["metadata"]["dhctl_launch"])
        return server.id

    def delete(self, server_id: str) -> None:
        if self.keep or self.down:
            raise self.keep or self.down or AssertionError
        self.deleted.append(server_id)
        self.by_id.pop(server_id, None)

    def launch_problem(self, vcpus: int, ram_mib: int) -> str:
        if self.down:
            raise self.down
        return self.quota


class Clock:
    """Stands in for the module `time`, where a test must not wait."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
