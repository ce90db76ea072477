"""The floor on OpenStack: the same network, head, worker and teardown by a plain openstacksdk script, without dhctl.

Nothing is checked, marked, journalled or proven; the head's dashboard is reached through an SSH tunnel, as ours is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from openstack.connection import Connection

NAME, CIDR, TOKEN = "floor", "10.76.0.0/24", "f" * 64
AGENT_PORTS = {
    "--node-manager-port": 20002,
    "--object-manager-port": 20003,
    "--dashboard-agent-listen-port": 20004,
    "--dashboard-agent-grpc-port": 20005,
    "--runtime-env-agent-port": 20006,
    "--metrics-export-port": 20007,
}
LIMIT_S = 300


class Floor:
    """One plain cluster."""

    def __init__(self, api: Connection, folder: Path) -> None:
        self.api, self.folder = api, folder
        self.key = folder / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)

    def up(self, local_port: int) -> float:
        """Seconds until the head's dashboard answers with the token."""
        started, network = time.monotonic(), self.api.network
        outside = network.find_network("public", ignore_missing=False)
        self.network = network.create_network(name=NAME)
        self.subnet = network.create_subnet(name=NAME, network_id=self.network.id, ip_version=4, cidr=CIDR)
        self.router = network.create_router(name=NAME, external_gateway_info={"network_id": outside.id})
        network.add_interface_to_router(self.router, subnet=self.subnet.id)
        self.outer, self.inner = (network.create_security_group(name=f"{NAME}-{part}") for part in ("ssh", "members"))
        ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "172.24.4.0/24"}
        for group, allowed in ((self.outer, ssh), (self.inner, {"remote_group_id": self.inner.id})):
            network.create_security_group_rule(security_group_id=group.id, direction="ingress", **allowed)
        self.api.compute.create_keypair(name=NAME, public_key=self.key.with_suffix(".pub").read_text())
        groups = [self.outer.id, self.inner.id]
        self.port = network.create_port(name=NAME, network_id=self.network.id, security_groups=groups)
        self.address = self.port.fixed_ips[0]["ip_address"]
        self.head = self._server("head", [{"port": self.port.id}], self._head_command())
        self.floating = network.create_ip(floating_network_id=outside.id, port_id=self.port.id)
        self.url = f"http://127.0.0.1:{local_port}"
        self._until(lambda: self._tunnel(local_port))
        self._until(lambda: self._ask("/api/version") is not None)
        return time.monotonic() - started

    def worker(self) -> float:
        """Seconds from the request for a server until Ray has it."""
        started = time.monotonic()
        command = self._ray("$(hostname -I | cut -d' ' -f1)", "--address", f"{self.address}:6379", "--num-cpus", "1")
        self.second = self._server("worker", [{"uuid": self.network.id}], command, [{"name": self.inner.id}])
        self._until(lambda: self._alive() == 2)
        return time.monotonic() - started

    def down(self) -> float:
        """Seconds until everything is gone, in the order of dependencies."""
        self.tunnel.terminate()
        self.tunnel.wait(10)
        started, network, compute = time.monotonic(), self.api.network, self.api.compute
        network.delete_ip(self.floating)
        for server in (self.second, self.head):
            compute.delete_server(server.id)
        self._until(lambda: not any(s.name.startswith(NAME) for s in compute.servers()))
        network.delete_port(self.port)
        network.remove_interface_from_router(self.router, subnet=self.subnet.id)
        network.delete_router(self.router)
        network.delete_network(self.network)
        for group in (self.outer, self.inner):
            network.delete_security_group(group)
        compute.delete_keypair(NAME)
        return time.monotonic() - started

    def _server(self, part: str, networks: list[Any], command: str, groups: list[Any] | None = None) -> Any:
        import base64

        image = self.api.image.find_image("host", ignore_missing=False)
        flavor = self.api.compute.find_flavor("m1.small", ignore_missing=False)
        told = {"security_groups": groups} if groups else {}
        return self.api.compute.create_server(
            name=f"{NAME}-{part}",
            image_id=image.id,
            flavor_id=flavor.id,
            networks=networks,
            key_name=NAME,
            user_data=base64.b64encode(f"#!/bin/bash\n{command}\n".encode()).decode(),
            **told,
        )

    def _head_command(self) -> str:
        head = ("--head", "--port", "6379", "--dashboard-host", "127.0.0.1", "--dashboard-port", "8265")
        return self._ray(self.address, *head, "--num-cpus", "0", "--object-store-memory", str(100 * 2**20))

    @staticmethod
    def _ray(address: str, *words: str) -> str:
        ports = [word for option, port in AGENT_PORTS.items() for word in (option, str(port))]
        options = " ".join([*words, *ports, "--disable-usage-stats"])
        env = f"HOME=/root RAY_AUTH_MODE=token RAY_AUTH_TOKEN={TOKEN}"
        return f"{env} {sys.executable} -m ray.scripts.scripts start --node-ip-address {address} {options}"

    def _tunnel(self, local_port: int) -> bool:
        forward = f"{local_port}:127.0.0.1:8265"
        lax = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2"]
        place = f"debian@{self.floating.floating_ip_address}"
        options = ["-F", "none", "-i", str(self.key), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *lax]
        tried = subprocess.run(["ssh", *options, place, "true"], capture_output=True, check=False)
        if tried.returncode:
            return False
        self.tunnel = subprocess.Popen(["ssh", *options, "-N", "-L", forward, place])
        return True

    def _ask(self, path: str) -> Any:
        try:
            answer = requests.get(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=3)
            return answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None

    def _alive(self) -> int:
        body = self._ask("/nodes?view=summary")
        nodes = body["data"]["summary"] if body else []
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)

    @staticmethod
    def _until(done: Any) -> None:
        end = time.monotonic() + LIMIT_S
        while not done():
            if time.monotonic() > end:
                raise TimeoutError("the floor did not come up")
            time.sleep(0.3)


@contextmanager
def cleaned(floor: Floor) -> Iterator[Floor]:
    """Removes what a broken floor left, by its name."""
    try:
        yield floor
    finally:
        api = floor.api
        for server in [s for s in api.compute.servers() if s.name.startswith(NAME)]:
            api.compute.delete_server(server.id)
        Floor._until(lambda: not any(s.name.startswith(NAME) for s in api.compute.servers()))
        if api.compute.find_keypair(NAME):
            api.compute.delete_keypair(NAME)
