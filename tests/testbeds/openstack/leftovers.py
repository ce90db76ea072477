"""What is in the project, by the APIs' raw listings and no mark: a test's own proof that nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from openstack.connection import Connection


def leftovers(cloud: Connection, ignore: Iterable[str] = ()) -> list[str]:
    """All in the connection's project but the default security group and the ids of `ignore`, as 'kind name (id)'."""
    skip = set(ignore)
    found = [(kind, item) for kind, listing in _listings(cloud).items() for item in listing()]
    return [f"{kind} {item.name or '-'} ({item.id})" for kind, item in found if item.id not in skip]


def _listings(cloud: Connection) -> dict[str, Callable[[], Iterable[Any]]]:
    project = cloud.current_project_id
    network, compute = cloud.network, cloud.compute
    identity: Any = cloud.identity  # typed as version 2 or 3
    listings: dict[str, Callable[[], Iterable[Any]]] = {
        "server": lambda: compute.servers(details=True),
        "keypair": compute.keypairs,
        "server group": compute.server_groups,
        "floating IP": lambda: network.ips(project_id=project),
        "port": lambda: network.ports(project_id=project),
        "router": lambda: network.routers(project_id=project),
        "subnet": lambda: network.subnets(project_id=project),
        "network": lambda: network.networks(project_id=project),
        "security group": lambda: (
            group for group in network.security_groups(project_id=project) if group.name != "default"
        ),
        "application credential": lambda: identity.application_credentials(user=cloud.current_user_id),
    }
    if cloud.has_service("block-storage"):
        listings["volume"] = cloud.block_storage.volumes
        listings["snapshot"] = cloud.block_storage.snapshots
    if cloud.has_service("load-balancer"):
        listings["load balancer"] = cloud.load_balancer.load_balancers
    return listings
