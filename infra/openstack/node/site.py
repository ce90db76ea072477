"""A server of a run, as its processes see it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cached_property

from dhctl.infra.node.site import NodeSite
from dhctl.infra.openstack.node.settings import NodeSettings

SOMEWHERE = "192.0.2.1"
"""An address of nobody (RFC 5737): asking for the way to it tells this node's own address; nothing is sent."""


@dataclass(frozen=True)
class ServerSite(NodeSite):
    """One server."""

    settings: NodeSettings

    @cached_property
    def address(self) -> str:
        """This node's address in the run's network. Raises OSError when it has none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.settings.head_address or SOMEWHERE, 9))
            return str(probe.getsockname()[0])
