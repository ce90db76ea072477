"""The floor on OpenStack: the same network, head, worker and teardown by a plain openstacksdk script, without dhctl.

    python openstack_floor.py up|worker|down|clean FOLDER

Login as the environment says; each step is a process of its own, as dhctl's verbs are, and finds in FOLDER what the one
before left. Ray's options are those of dhctl's nodes. Nothing is checked, marked, journalled or proven; the head's
dashboard is reached through an SSH tunnel, as ours is.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import openstack
import requests

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
EVERY_S = 0.3


class Floor:
    """One plain cluster. Its `kept` is what the next step needs: ids, addresses, the tunnel's pid."""

    def __init__(self, folder: Path) -> None:
        self.api = openstack.connect()
        self.key, self._state = folder / "id", folder / "state.json"
        self.kept: dict[str, Any] = json.loads(self._state.read_text()) if self._state.exists() else {}

    def up(self) -> None:
        """Until the head's dashboard answers with the token."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        network, kept = self.api.network, self.kept
        outside = network.find_network("public", ignore_missing=False)
        kept["network"] = network.create_network(name=NAME).id
        kept["subnet"] = network.create_subnet(name=NAME, network_id=kept["network"], ip_version=4, cidr=CIDR).id
        kept["router"] = network.create_router(name=NAME, external_gateway_info={"network_id": outside.id}).id
        network.add_interface_to_router(kept["router"], subnet=kept["subnet"])
        outer, inner = (network.create_security_group(name=f"{NAME}-{part}").id for part in ("ssh", "members"))
        kept["groups"] = [outer, inner]
        ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "172.24.4.0/24"}
        for group, allowed in ((outer, ssh), (inner, {"remote_group_id": inner})):
            network.create_security_group_rule(security_group_id=group, direction="ingress", **allowed)
        self.api.compute.create_keypair(name=NAME, public_key=self.key.with_suffix(".pub").read_text())
        port = network.create_port(name=NAME, network_id=kept["network"], security_groups=kept["groups"])
        kept["port"], kept["address"] = port.id, port.fixed_ips[0]["ip_address"]
        kept["head"] = self._server("head", [{"port": port.id}], self._head_command())
        floating = network.create_ip(floating_network_id=outside.id, port_id=port.id)
        kept["floating"], kept["outer_address"] = floating.id, floating.floating_ip_address
        with socket.create_server(("127.0.0.1", 0)) as free:
            kept["local_port"] = free.getsockname()[1]
        _until(self._tunnel)
        _until(lambda: self._ask("/api/version") is not None)
        self._state.write_text(json.dumps(kept))

    def worker(self) -> float:
        """Seconds from the request for a server until Ray has it: dhctl's autoscaler runs already, and is logged in."""
        self.api.authorize()
        started = time.monotonic()
        address, kept = "$(hostname -I | cut -d' ' -f1)", self.kept
        command = self._ray(address, "--address", f"{kept['address']}:6379", "--num-cpus", "1", "--num-gpus", "0")
        groups = [{"name": kept["groups"][1]}]
        kept["worker"] = self._server("worker", [{"uuid": kept["network"]}], command, groups)
        _until(lambda: self._alive() == 2)
        took_s = time.monotonic() - started
        self._state.write_text(json.dumps(kept))
        return took_s

    def down(self) -> None:
        """Everything, in the order of dependencies, each step when the one before has gone."""
        network, compute, kept = self.api.network, self.api.compute, self.kept
        os.kill(kept["tunnel"], signal.SIGTERM)
        network.delete_ip(kept["floating"])
        for server in (kept["worker"], kept["head"]):
            compute.delete_server(server)
        _until(lambda: not any(s.name.startswith(f"{NAME}-") for s in compute.servers()))
        network.delete_port(kept["port"])
        network.remove_interface_from_router(kept["router"], subnet=kept["subnet"])
        network.delete_router(kept["router"])
        network.delete_subnet(kept["subnet"])
        network.delete_network(kept["network"])
        for group in kept["groups"]:
            network.delete_security_group(group)
        compute.delete_keypair(NAME)
        self._state.unlink()

    def clean(self) -> None:
        """Removes what a broken floor left, by its name; silent when nothing is there."""
        network, compute = self.api.network, self.api.compute
        if "tunnel" in self.kept:
            with suppress(ProcessLookupError):
                os.kill(self.kept["tunnel"], signal.SIGTERM)
        for server in [s for s in compute.servers() if s.name.startswith(f"{NAME}-")]:
            compute.delete_server(server.id)
        _until(lambda: not any(s.name.startswith(f"{NAME}-") for s in compute.servers()))
        for port in network.ports(name=NAME):
            for floating in network.ips(port_id=port.id):
                network.delete_ip(floating.id)
            network.delete_port(port.id)
        for router in network.routers(name=NAME):
            for port in network.ports(device_id=router.id, device_owner="network:router_interface"):
                network.remove_interface_from_router(router.id, port=port.id)
            network.delete_router(router.id)
        for found in network.networks(name=NAME):
            network.delete_network(found.id)  # its subnet goes with it
        for part in ("ssh", "members"):
            for group in network.security_groups(name=f"{NAME}-{part}"):
                network.delete_security_group(group.id)
        compute.delete_keypair(NAME, ignore_missing=True)

    def _server(self, part: str, networks: list[Any], command: str, groups: list[Any] | None = None) -> str:
        image = self.api.image.find_image("host", ignore_missing=False)
        flavor = self.api.compute.find_flavor("m1.small", ignore_missing=False)
        told = {"security_groups": groups} if groups else {}
        made = self.api.compute.create_server(
            name=f"{NAME}-{part}",
            image_id=image.id,
            flavor_id=flavor.id,
            networks=networks,
            key_name=NAME,
            user_data=base64.b64encode(f"#!/bin/bash\n{command}\n".encode()).decode(),
            **told,
        )
        return str(made.id)

    def _head_command(self) -> str:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # an instance sees this machine's
        head = ("--head", "--port", "6379", "--dashboard-host", "127.0.0.1", "--dashboard-port", "8265")
        size = ("--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", str(min(memory // 10, 2 * 2**30)))
        return self._ray(self.kept["address"], *head, "--ray-client-server-port", "10001", *size)

    @staticmethod
    def _ray(address: str, *words: str) -> str:
        ports = [word for option, port in AGENT_PORTS.items() for word in (option, str(port))]
        ports += ["--min-worker-port", "20100", "--max-worker-port", "20999"]
        options = " ".join([*words, *ports, "--disable-usage-stats"])
        env = f"HOME=/root RAY_AUTH_MODE=token RAY_AUTH_TOKEN={TOKEN}"
        return f"{env} {sys.executable} -m ray.scripts.scripts start --node-ip-address {address} {options}"

    def _tunnel(self) -> bool:
        """One SSH that stays; whether it carries. Tried again until the head takes logins."""
        port = self.kept["local_port"]
        lax = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2"]
        place = f"debian@{self.kept['outer_address']}"
        options = ["-F", "none", "-i", str(self.key), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *lax]
        tried = subprocess.run(["ssh", *options, place, "true"], capture_output=True, check=False)
        if tried.returncode:
            return False
        nothing = subprocess.DEVNULL
        forward = ["ssh", *options, "-N", "-L", f"{port}:127.0.0.1:8265", place]
        kept = subprocess.Popen(forward, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        self.kept["tunnel"] = kept.pid
        return True

    def _ask(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.kept['local_port']}{path}"
        try:
            answer = requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=3)
            return answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None

    def _alive(self) -> int:
        body = self._ask("/nodes?view=summary")
        nodes = body["data"]["summary"] if body else []
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def _until(done: Any) -> None:
    end = time.monotonic() + LIMIT_S
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the floor did not come up")
        time.sleep(EVERY_S)


if __name__ == "__main__":
    floor = Floor(Path(sys.argv[2]))
    match sys.argv[1]:
        case "up":
            floor.up()
        case "worker":
            print(floor.worker())
        case "down":
            floor.down()
        case "clean":
            floor.clean()
