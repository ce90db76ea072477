"""Where the testbed keeps its things, and the addresses and names that its parts share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "k8stb"
"""Of network namespaces, links and cgroups."""
FABRIC = f"{PREFIX}-fabric"
"""The namespace of the control plane, whose bridge joins the nodes and this machine."""
MACHINE_LINK = PREFIX
"""This machine's end of its cable to the bridge."""
FABRIC_CIDR = "10.250.0.0/24"
API_ADDRESS = "10.250.0.1"
API_PORT = 6443
MACHINE_ADDRESS = "10.250.0.254"
"""Of this machine on the fabric: what listens on it is reached from pods, and nothing else outside the cluster is."""
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
TENANT = "tenant"
"""The user without any right but what a test binds to the name."""
IMAGE = "localhost/dhctl-testbed:1"
"""Debian with python3, bash, procps and the user `user` (1000); on every node. There is no other but `pause`."""
PAUSE_IMAGE = "localhost/pause:1"
STATE_ENV = "DHCTL_K8S_TESTBED_STATE"
"""For the caller: another state folder."""
CACHE_ENV = "DHCTL_K8S_TESTBED_CACHE"
"""For the caller: another folder for the programs and the image."""


@dataclass(frozen=True)
class Node:
    """One node: its name in the cluster, and what it is on this machine."""

    number: int

    @property
    def name(self) -> str:
        """In the cluster."""
        return f"node{self.number}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{PREFIX}-{self.name}"

    @property
    def cgroup(self) -> str:
        """The folder of its pods in every cgroup hierarchy."""
        return f"{PREFIX}-{self.name}"

    @property
    def address(self) -> str:
        """On the fabric."""
        return f"10.250.0.{10 + self.number}"

    @property
    def pod_cidr(self) -> str:
        """Of its pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def fabric_link(self) -> str:
        """The fabric's end of its cable."""
        return f"v{self.number}"


NODES = (Node(1), Node(2))


@dataclass(frozen=True)
class Layout:
    """The state folder and the cache. Outside them are only namespaces, a link, cgroups and two empty folders."""

    state: Path
    cache: Path

    @classmethod
    def of_environment(cls) -> Layout:
        """The folders that DHCTL_K8S_TESTBED_STATE and _CACHE name, else the machine's and the user's."""
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = os.environ.get(CACHE_ENV) or f"{caches}/dhctl-testbeds/kubernetes"
        state = os.environ.get(STATE_ENV) or "/var/lib/k8s-testbed"
        return cls(Path(state).resolve(), Path(cache).expanduser().resolve())

    @property
    def env(self) -> dict[str, str]:
        """With it in the environment, `of_environment` gives the same."""
        return {STATE_ENV: str(self.state), CACHE_ENV: str(self.cache)}

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def log(self) -> Path:
        """One file a service. Kept when the testbed goes, for whoever asks why."""
        return self.state / "log"

    @property
    def ready_file(self) -> Path:
        """Is there from the moment that the cluster can be used."""
        return self.state / "ready"

    def held_down(self, service: str) -> Path:
        """Is held (sharing.py) by a test for as long as it wants the service to be away."""
        return self.state / "held-down" / service

    @property
    def admin_kubeconfig(self) -> Path:
        """Of a member of system:masters."""
        return self.kubeconfig("admin")

    @property
    def tenant_kubeconfig(self) -> Path:
        """Of the user `tenant`."""
        return self.kubeconfig(TENANT)

    def kubeconfig(self, user: str) -> Path:
        """Of a user by the name of its certificate."""
        return self.state / "kubeconfig" / user

    def node(self, node: Node) -> Path:
        """What one node keeps."""
        return self.state / node.name
