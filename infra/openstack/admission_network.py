"""Admission on OpenStack, part network: where the servers are plugged in, and the way to the head."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from openstack.connection import Connection

from dhctl.infra.openstack.kinds import ROUTER_INTERFACES
from dhctl.infra.openstack.lookup import Found, external_networks, find_network
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement

EXTERNAL, EXISTING = "openstack.external_network", "openstack.network"
ROUTER_OWNERS = (*ROUTER_INTERFACES, "network:router_interface_distributed")


def network_requirements(spec: RunSpec, connection: Connection) -> Iterator[Requirement]:
    """External network, the run's own subnet or the existing network. Raises what openstacksdk raises."""
    wanted, external = spec.openstack, Found()
    if wanted.network is None or wanted.floating_ip:
        external = _external(wanted, connection)
        told = external.told
        yield Requirement("external network", wanted.external_network or "one", told, external.problem)
    if wanted.network is None:
        yield _subnet(wanted, external.item, connection)
        return
    found = find_network(connection, wanted.network, EXISTING)
    problem = found.problem or _unfit(wanted, found.item, connection)
    yield Requirement("network", wanted.network, found.told, problem or _unrouted(wanted, found, external, connection))


def reach_requirements(spec: RunSpec) -> Iterator[Requirement]:
    """Who may come in, and on which way. No call."""
    wanted = spec.openstack
    ranges = ", ".join(wanted.ssh_from)
    problem = (
        "" if ranges else "openstack.ssh_from is empty, so nobody could reach the head; set it to your address range"
    )
    everyone = any(ipaddress.ip_network(text).prefixlen == 0 for text in wanted.ssh_from)
    told = f"{ranges}: everybody" if everyone else ranges
    yield Requirement("SSH from", "at least one range", told or "none", problem)
    if wanted.bastion:
        yield Requirement("way to the head", "SSH", f"through {wanted.bastion}")
    elif wanted.floating_ip:
        yield Requirement("way to the head", "SSH", "its floating IP")
    else:
        told = f"directly: this machine must reach addresses of {wanted.network or wanted.cidr}"
        yield Requirement("way to the head", "SSH", f"{told}; else set openstack.bastion")


def _external(wanted: OpenStackSection, connection: Connection) -> Found:
    """The external network, or why it does not serve."""
    user = "router" if wanted.network is None else "floating IP"
    name = wanted.external_network
    found = find_network(connection, name, EXTERNAL) if name else Found()
    if found.problem or (found.item is not None and found.item.is_router_external):
        return found
    known = ", ".join(external_networks(connection)) or "none to be seen here"
    what = f"network '{name}' is not external, and the {user} needs one that is"
    told = what if name else f"{EXTERNAL} is not set, and the {user} needs it"
    return Found(None, f"{told}; set {EXTERNAL} to an external network: {known}")


def _subnet(wanted: OpenStackSection, external: Any, connection: Connection) -> Requirement:
    """The run's own: neutron refuses a router between ranges that overlap."""
    own = ipaddress.ip_network(wanted.cidr)
    problem = ""
    inside = [server for server in wanted.dns_servers if ipaddress.ip_address(server) in own]
    if own.version != 4:
        problem = (
            f"openstack.cidr {own} is IPv6, and nodes reach each other by IPv4; set it to one such as 10.77.0.0/24"
        )
    elif inside:
        told = f"openstack.dns_servers has {inside[0]}, which lies in the run's own subnet {own}, where nobody answers"
        problem = f"{told}; take a server outside, or set openstack.cidr to another range"
    elif external is not None:
        ranges = [str(subnet.cidr) for subnet in connection.network.subnets(network_id=external.id)]
        taken = [text for text in ranges if own.overlaps(ipaddress.ip_network(text))]
        told = f"openstack.cidr {own} overlaps with {', '.join(taken)} of network {external.name}"
        problem = f"{told}; set openstack.cidr to another range" if taken else ""
    return Requirement("subnet", str(own), "refused" if problem else "no overlap seen", problem)


def _unfit(wanted: OpenStackSection, network: Any, connection: Connection) -> str:
    """Why no server of a run can be plugged into this network, or ""."""
    fix = f"set {EXISTING} to another one, or leave it out"
    if network.is_admin_state_up is False:
        return f"network {network.name} is administratively down; {fix}"
    if network.is_port_security_enabled is False:
        return f"network {network.name} has no port security, so security groups would not protect the nodes; {fix}"
    subnets = [subnet for subnet in connection.network.subnets(network_id=network.id) if subnet.ip_version == 4]
    if not subnets:
        return f"network {network.name} has no IPv4 subnet that this project can see; {fix}"
    if not any(subnet.is_dhcp_enabled for subnet in subnets):
        return f"no IPv4 subnet of network {network.name} has DHCP, and images need it; switch it on or {fix}"
    if wanted.floating_ip and network.is_router_external:
        return f"network {network.name} is external itself and takes no floating IP; set openstack.floating_ip to false"
    return ""


def _unrouted(wanted: OpenStackSection, found: Found, external: Found, connection: Connection) -> str:
    """Why a floating IP cannot work on this network, as far as this project can see it, or ""."""
    if not wanted.floating_ip or external.item is None or found.item is None:
        return ""
    ports = connection.network.ports(network_id=found.item.id)
    routers = {str(port.device_id) for port in ports if port.device_owner in ROUTER_OWNERS}
    if not routers and found.item.project_id != connection.current_project_id:
        return ""  # a shared network's routers are its owner's to see
    told = [router for router in connection.network.routers() if router.id in routers]
    gateways = {(router.external_gateway_info or {}).get("network_id") for router in told}
    if external.item.id in gateways or len(told) < len(routers):
        return ""
    fix = f"add one, set {EXTERNAL} to that of its router, or set openstack.floating_ip to false"
    return f"no router joins network {found.item.name} to {external.item.name}, so no floating IP can work; {fix}"
