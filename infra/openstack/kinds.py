"""Every kind of resource that a run may own on OpenStack, in the order in which they can be deleted: how all marked
ones of the project are listed through the raw API, how one is deleted, and who may hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openstack.connection import Connection

from dhctl.infra.openstack.mark import Mark

TAG_PROOF, METADATA_PROOF, NAME_PROOF = "tag or description dhctl-run", "metadata dhctl_run", "name"
ROUTER_INTERFACES = ("network:router_interface", "network:ha_router_replicated_interface")


@dataclass(frozen=True)
class Project:
    """The project that is looked at. `known` are servers of a run that may be gone, as `<run id>/<server id>`."""

    connection: Connection
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Owned:
    """One resource that carries a run's mark."""

    kind: str
    id: str
    name: str
    mark: Mark


@dataclass(frozen=True)
class Kind:
    """One kind. `find` lists all marked resources of the project, of any run."""

    name: str
    proof: str
    service: str
    command: str
    find: Callable[[Project], Iterable[Owned]]
    delete: Callable[[Project, Owned], None]
    holders: Callable[[Project, Owned], Iterable[str]] = lambda project, owned: ()

    @property
    def place(self) -> str:
        """The row of a receipt."""
        return f"{self.name}s"

    def remove_with(self, owned: Owned) -> str:
        """The command with which an operator deletes it."""
        return self.command.format(id=owned.id, name=owned.name)


def _owned(kind: str, found: Any, mark: Mark | None) -> Iterator[Owned]:
    if mark:
        yield Owned(kind, str(found.id), str(found.name or found.id), mark)


def _mark_of(found: Any) -> Mark | None:
    """Tags are written after a resource is made, the description with it: a maker that died in between left no tags."""
    return Mark.from_tags(found.tags or ()) or Mark.from_tags(str(found.description or "").split())


def _tagged(kind: str, listing: str) -> Callable[[Project], Iterable[Owned]]:
    def find(project: Project) -> Iterator[Owned]:
        for found in getattr(project.connection.network, listing)(project_id=project.connection.current_project_id):
            yield from _owned(kind, found, _mark_of(found))

    return find


def _servers(project: Project) -> Iterator[Owned]:
    for found in project.connection.compute.servers(details=True):
        yield from _owned("server", found, Mark.from_metadata(found.metadata))


def _ports(project: Project) -> Iterator[Owned]:
    """Tagged ones, and those that nova made for a server of the run: a port that nova forgot bears the server's id."""
    servers = {owned.id: owned.mark for owned in _servers(project)}
    for found in project.connection.network.ports(project_id=project.connection.current_project_id):
        mark = _mark_of(found)
        if mark is None and str(found.device_owner).startswith("compute:"):
            mark = servers.get(found.device_id) or _of_known(found.device_id, project.known)
        yield from _owned("port", found, mark)


def _of_known(device_id: str, known: frozenset[str]) -> Mark | None:
    """`known` holds `<run id>/<server id>`, as the ledger tells of servers that are gone."""
    run_ids = [entry.partition("/")[0] for entry in known if entry.endswith(f"/{device_id}")]
    return Mark(run_ids[0]) if run_ids and device_id else None


def _volumes(project: Project) -> Iterator[Owned]:
    for found in project.connection.block_storage.volumes(details=True):
        yield from _owned("volume", found, Mark.from_metadata(found.metadata))


def _snapshots(project: Project) -> Iterator[Owned]:
    """Snapshots with the mark, and those of the run's volumes: a volume with snapshots cannot be deleted."""
    volumes = {owned.id: owned.mark for owned in _volumes(project)}
    for found in project.connection.block_storage.snapshots(details=True):
        mark = Mark.from_metadata(found.metadata) or volumes.get(found.volume_id)
        yield from _owned("volume snapshot", found, mark)


def _load_balancers(project: Project) -> Iterator[Owned]:
    for found in project.connection.load_balancer.load_balancers(project_id=project.connection.current_project_id):
        mark = Mark.from_tags(found.tags or ()) or Mark.from_name(found.name)
        yield from _owned("load balancer", found, mark)


def _keypairs(project: Project) -> Iterator[Owned]:
    for found in project.connection.compute.keypairs():
        yield from _owned("keypair", found, Mark.from_name(found.name))


def _server_groups(project: Project) -> Iterator[Owned]:
    for found in project.connection.compute.server_groups():
        yield from _owned("server group", found, Mark.from_name(found.name))


def _credentials(project: Project) -> Iterator[Owned]:
    identity: Any = project.connection.identity  # v3, where these are
    for found in identity.application_credentials(user=project.connection.current_user_id):
        yield from _owned("application credential", found, Mark.from_name(found.name, found.description))


def _delete_router(project: Project, owned: Owned) -> None:
    """Only interfaces on the run's own subnets are taken off: another one belongs to whoever plugged it in."""
    subnets = {o.id for o in _tagged("subnet", "subnets")(project) if o.mark.run_id == owned.mark.run_id}
    for port in project.connection.network.ports(device_id=owned.id):
        on_ours = any(fixed["subnet_id"] in subnets for fixed in port.fixed_ips)
        if port.device_owner in ROUTER_INTERFACES and on_ours:
            project.connection.network.remove_interface_from_router(owned.id, port=port.id)
    project.connection.network.delete_router(owned.id, ignore_missing=True)


def _port_text(port: Any) -> str:
    owner = f", {port.device_owner} {port.device_id}" if port.device_owner else ""
    return f"port {port.name or port.id} ({port.id}{owner})"


def _ports_of_network(project: Project, owned: Owned) -> Iterator[str]:
    wanted = {"network_id": owned.id} if owned.kind == "network" else {"fixed_ips": f"subnet_id={owned.id}"}
    for port in project.connection.network.ports(**wanted):
        if not _mark_of(port) and port.device_owner != "network:dhcp":
            yield _port_text(port)


def _ports_of_group(project: Project, owned: Owned) -> Iterator[str]:
    for port in project.connection.network.ports():
        if owned.id in (port.security_group_ids or ()):
            yield _port_text(port)


def _users_of_router(project: Project, owned: Owned) -> Iterator[str]:
    for port in project.connection.network.ports(device_id=owned.id):
        if port.device_owner in ROUTER_INTERFACES:
            yield _port_text(port)
    for address in project.connection.network.ips(router_id=owned.id):
        if not _mark_of(address):
            yield f"floating IP {address.floating_ip_address} ({address.id})"


def _delete_credential(project: Project, owned: Owned) -> None:
    identity: Any = project.connection.identity  # v3, where these are
    identity.delete_application_credential(project.connection.current_user_id, owned.id, ignore_missing=True)


def _call(proxy: str, method: str) -> Callable[[Project, Owned], None]:
    def delete(project: Project, owned: Owned) -> None:
        getattr(getattr(project.connection, proxy), method)(owned.id, ignore_missing=True)

    return delete


KINDS: tuple[Kind, ...] = (
    Kind(
        "application credential",
        NAME_PROOF,
        "identity",
        "openstack application credential delete {id}",
        find=_credentials,
        delete=_delete_credential,
    ),
    Kind(
        "server",
        METADATA_PROOF,
        "compute",
        "openstack server delete --wait {id}",
        find=_servers,
        delete=_call("compute", "delete_server"),
    ),
    Kind(
        "load balancer",
        TAG_PROOF,
        "load-balancer",
        "openstack loadbalancer delete --cascade {id}",
        find=_load_balancers,
        delete=lambda project, owned: project.connection.load_balancer.delete_load_balancer(owned.id, cascade=True),
    ),
    Kind(
        "floating IP",
        TAG_PROOF,
        "network",
        "openstack floating ip delete {id}",
        find=_tagged("floating IP", "ips"),
        delete=_call("network", "delete_ip"),
    ),
    Kind(
        "port",
        TAG_PROOF,
        "network",
        "openstack port delete {id}",
        find=_ports,
        delete=_call("network", "delete_port"),
    ),
    Kind(
        "volume snapshot",
        METADATA_PROOF,
        "block-storage",
        "openstack volume snapshot delete {id}",
        find=_snapshots,
        delete=_call("block_storage", "delete_snapshot"),
    ),
    Kind(
        "volume",
        METADATA_PROOF,
        "block-storage",
        "openstack volume delete {id}",
        find=_volumes,
        delete=_call("block_storage", "delete_volume"),
    ),
    Kind(
        "router",
        TAG_PROOF,
        "network",
        "openstack router delete {id}",
        find=_tagged("router", "routers"),
        delete=_delete_router,
        holders=_users_of_router,
    ),
    Kind(
        "subnet",
        TAG_PROOF,
        "network",
        "openstack subnet delete {id}",
        find=_tagged("subnet", "subnets"),
        delete=_call("network", "delete_subnet"),
        holders=_ports_of_network,
    ),
    Kind(
        "network",
        TAG_PROOF,
        "network",
        "openstack network delete {id}",
        find=_tagged("network", "networks"),
        delete=_call("network", "delete_network"),
        holders=_ports_of_network,
    ),
    Kind(
        "security group",
        TAG_PROOF,
        "network",
        "openstack security group delete {id}",
        find=_tagged("security group", "security_groups"),
        delete=_call("network", "delete_security_group"),
        holders=_ports_of_group,
    ),
    Kind(
        "keypair",
        NAME_PROOF,
        "compute",
        "openstack keypair delete {name}",
        find=_keypairs,
        delete=_call("compute", "delete_keypair"),
    ),
    Kind(
        "server group",
        NAME_PROOF,
        "compute",
        "openstack server group delete {id}",
        find=_server_groups,
        delete=_call("compute", "delete_server_group"),
    ),
)
"""Dependency order. Application credentials go first, so that nothing new is made with them."""


def kinds_of(connection: Connection) -> list[Kind]:
    """The kinds whose service the cloud's catalog has."""
    return [kind for kind in KINDS if connection.has_service(kind.service)]
