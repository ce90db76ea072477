"""Where the testbed keeps its things, and the addresses, names and passwords that its parts share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PASSWORD = "testbed"
"""Of every account. Services listen on 127.0.0.1, the APIs that instances call on the testbed's own bridge."""
PROJECT = "demo"
CLOUD = "testbed"
"""Entry of clouds.yaml: the user demo, member of the project demo."""
ADMIN_CLOUD = "testbed-admin"
LOOPBACK = "127.0.0.1"
EXTERNAL_BRIDGE = "ostb-ex"
EXTERNAL_CIDR = "172.24.4.0/24"
EXTERNAL_ADDRESS = "172.24.4.1"
"""Of this machine on the external network: the gateway of floating IPs, and what instances reach."""
IDENTITY_URL = f"http://{EXTERNAL_ADDRESS}:5000/v3"
ENDPOINTS = {
    "identity": IDENTITY_URL,
    "image": f"http://{EXTERNAL_ADDRESS}:9292",
    "placement": f"http://{LOOPBACK}:8778",
    "compute": f"http://{EXTERNAL_ADDRESS}:8774/v2.1",
    "network": f"http://{EXTERNAL_ADDRESS}:9696",
}
TOKEN_CACHE_S = 2
"""How long a service may go on trusting a token that keystone has revoked."""
STATE_ENV = "DHCTL_TESTBED_STATE"
"""For the caller: another state folder."""


@dataclass(frozen=True)
class Layout:
    """The state folder; nothing outside it is written but bridges, namespaces and firewall chains."""

    state: Path

    @classmethod
    def of_environment(cls) -> Layout:
        """The folder that DHCTL_TESTBED_STATE names, else the machine's."""
        return cls(Path(os.environ.get(STATE_ENV, "/var/lib/os-testbed")).resolve())

    @property
    def etc(self) -> Path:
        """Configuration files of the services."""
        return self.state / "etc"

    @property
    def log(self) -> Path:
        """One file a service. Kept when the testbed goes, for whoever asks why."""
        return self.state / "log"

    @property
    def clouds_yaml(self) -> Path:
        """For OS_CLIENT_CONFIG_FILE."""
        return self.state / "clouds.yaml"

    @property
    def ready_file(self) -> Path:
        """Is there from the moment that the cloud can be used."""
        return self.state / "ready"

    @property
    def mysql_socket(self) -> Path:
        """Where mariadbd listens for root."""
        return self.state / "run" / "mysql" / "s.sock"
