"""The spec's section for target openstack."""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum

from pydantic import Field, field_validator

from dhctl.infra.spec_base import Frozen, Name
from dhctl.infra.units import Size

_BASTION = re.compile(r"[\w.-]+@[\w.:-]+")


class ServerGroupPolicy(StrEnum):
    """How nova places the servers of a server group; the terms are nova's."""

    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"


class OpenStackSection(Frozen):
    """Only for target openstack."""

    cloud: str | None = None
    """Entry of clouds.yaml to use; by default what `OS_CLOUD` or the `OS_*` variables say."""
    site: Name | None = None
    """Where the cloud stands; needed for data with a `residency`."""
    image: str | None = None
    """Image of head and workers, by name or id. Needed."""
    user: str = Field(default="debian", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    """Login user of the image."""
    flavor: str | None = None
    """Flavor of the workers, by name or id. Needed."""
    head_flavor: str | None = None
    """Flavor of the head; by default that of the workers."""
    external_network: str | None = None
    """Network of the router's gateway and of the floating IP, by name or id. Needed for these."""
    network: str | None = None
    """An existing network to use, by name or id; then no network, subnet or router is made."""
    cidr: str = "10.77.0.0/24"
    """Addresses of the run's own subnet."""
    dns_servers: tuple[str, ...] = ()
    """DNS servers of the run's own subnet; by default the site's."""
    floating_ip: bool = True
    """Whether the head gets a floating IP; without one it must be reachable directly or through `bastion`."""
    ssh_from: tuple[str, ...] = ()
    """Address ranges (CIDR) from which the head takes SSH. At least one; nothing else is open to the outside."""
    bastion: str | None = None
    """Jump host on the way to the head, `user@host` or `user@host:port`, reached with your own SSH settings."""
    availability_zone: str | None = None
    """Availability zone of all servers."""
    server_group: ServerGroupPolicy | None = None
    """Makes a server group with this policy for all servers of the run."""
    boot_volume: Size | None = Field(default=None, ge=2**30)
    """Servers boot from a volume of this size, such as 40GiB, instead of the flavor's disk."""
    volume_type: str | None = None
    """Type of these volumes; by default the site's."""
    config_drive: bool = False
    """Whether servers read their user data from a config drive: for sites without a metadata service."""
    python: str | None = None
    """Interpreter of a prebaked image in which Ray and openstacksdk are installed; by default looked for."""
    package_index: str | None = Field(default=None, pattern=r"^https?://")
    """Package index (PEP 503) from which nodes install Ray where the image has none; by default PyPI."""

    @field_validator("ssh_from", "dns_servers", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("ssh_from")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_network(item) for item in value)

    @field_validator("cidr")
    @classmethod
    def _range(cls, value: str) -> str:
        found = ipaddress.ip_network(_network(value))
        if found.num_addresses < 8:
            raise ValueError(f"{value} has too few addresses; use a /24, such as 10.77.0.0/24")
        return str(found)

    @field_validator("dns_servers")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            try:
                ipaddress.ip_address(item)
            except ValueError as error:
                raise ValueError(f"{item!r} is no IP address; write one such as 9.9.9.9") from error
        return value

    @field_validator("bastion")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is not None and not _BASTION.fullmatch(value):
            raise ValueError(f"{value!r} does not fit; write user@host or user@host:port")
        return value

    @property
    def flavor_of_head(self) -> str | None:
        """The head's flavor."""
        return self.head_flavor or self.flavor


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address range ({error}); write one such as 192.0.2.0/24") from error
