"""What the processes of a node have in common: where they run, with which interpreter, in which environment."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dhctl.infra import ray_config
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import AGENT_PORTS, CODE_FOLDER, WORKER_PORTS, NodeFolder

RECONNECT_S = 300
"""How long workers wait for a head that starts again, before they end."""


SIOCGIFADDR = 0x8915
"""Linux's request for an interface's IPv4 address (netdevice(7))."""


def interface_of(address: str) -> str:
    """Name of the network interface that has this IPv4 address. Raises OSError when none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an IPv4 address
                told = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(told[20:24]) == address:
                    return name
    raise OSError(f"no network interface has the address {address}")


KNOCK_S = 2.0


class SiteSettings(ray_config.WorkerGroup, Protocol):
    """What of a node's settings its processes need."""

    @property
    def node_id(self) -> str:
        """The node's name."""

    @property
    def expires_at(self) -> int:
        """The end of the lease in epoch seconds."""


@dataclass(frozen=True)
class NodeSite(ABC):
    """One node. `job_env` is what the owner's jobs find in their environment, keys of an object store among it."""

    settings: SiteSettings
    folder: NodeFolder
    journal: NodeJournal
    job_env: Mapping[str, str]

    @property
    @abstractmethod
    def address(self) -> str:
        """This node's address among the cluster's nodes. Raises OSError when it has none."""

    @property
    def token(self) -> Path:
        """The file with Ray's token."""
        return self.folder.token

    @property
    def python_path(self) -> str:
        """Where dhctl's own processes find its code."""
        return CODE_FOLDER

    @property
    def memory_bytes(self) -> int:
        """What the node has."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def python_module(self, module: str) -> list[str]:
        """The command that runs a module with the interpreter that has Ray."""
        return [sys.executable, "-u", "-m", module]

    def answers(self, url: str) -> bool:
        """Whether a part of Ray on this node answers a caller with the token, past any proxy of the site."""
        token = self.token.read_text().strip()
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=KNOCK_S):
                return True
        except OSError:
            return False

    def log(self, name: str) -> Path:
        """The file for a process' output."""
        return self.folder.logs / f"{name}.log"

    def own_env(self) -> dict[str, str]:
        """For dhctl's own processes: the environment of the boot without Ray's settings, and dhctl's code."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return {**kept, "PATH": path, "PYTHONPATH": self.python_path, RUN_ENV: self.settings.run_id}

    def job_base(self) -> dict[str, str]:
        """What jobs inherit of it: dhctl's code is not on their path."""
        return {"HOME": "/root", **{k: v for k, v in self.own_env().items() if k != "PYTHONPATH"}}

    def ray_env(self, ray_id: str, kind: str) -> dict[str, str]:
        """For Ray's processes: token, identity, what jobs need."""
        return {
            **self.job_base(),
            # a cloud image's /etc/hosts gives the node's name to 127.0.1.1: gloo would tell that to the other workers
            **dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface_of(self.address)),
            **self.job_env,
            **rays_own_env(self.token, ray_id, kind),
        }

    def ray_command(self) -> list[str]:
        """`ray start --block` with what head and workers have in common."""
        return [*self.python_module("ray.scripts.scripts"), *start_options(self.address, self.folder.ray_temp)]


def rays_own_env(token: Path, ray_id: str, kind: str) -> dict[str, str]:
    """What Ray's processes of head and workers must find in their environment, where a head may start again."""
    return {
        **ray_config.own_env(token, ray_id, kind),
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S),
    }


def start_options(address: str, temp_dir: Path) -> list[str]:
    """Words after `ray` that start a node of any kind; all ports are fixed, as the firewall wants."""
    options = ["start", "--block", "--disable-usage-stats", "--node-ip-address", address, "--temp-dir", str(temp_dir)]
    options += ["--min-worker-port", str(WORKER_PORTS[0]), "--max-worker-port", str(WORKER_PORTS[1])]
    for option, port in AGENT_PORTS.items():
        options += [option, str(port)]
    return options
