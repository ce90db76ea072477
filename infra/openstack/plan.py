"""What `up` would make on OpenStack, for `dhctl plan`."""

from __future__ import annotations

from collections.abc import Iterator

from dhctl.infra.spec import RunSpec
from dhctl.infra.target import PlannedResource
from dhctl.infra.units import format_duration, format_size


def resources(spec: RunSpec) -> list[PlannedResource]:
    """Everything, with who makes it. No call to the cloud."""
    return [*_network(spec), *_access(spec), *_head(spec), *_workers(spec)]


def _network(spec: RunSpec) -> Iterator[PlannedResource]:
    section = spec.openstack
    if section.network:
        return
    yield PlannedResource("network", "Network", "Pulumi", "the run's own")
    yield PlannedResource("subnet", "Subnet", "Pulumi", section.cidr)
    if section.external_network:
        yield PlannedResource("router", "Router", "Pulumi", f"gateway in {section.external_network}")
        yield PlannedResource("router-interface", "RouterInterface", "Pulumi", "")


def _access(spec: RunSpec) -> Iterator[PlannedResource]:
    section = spec.openstack
    sources = ", ".join(section.ssh_from) or "nowhere"
    yield PlannedResource("head-security-group", "SecGroup", "Pulumi", f"SSH from {sources}")
    yield PlannedResource("members-security-group", "SecGroup", "Pulumi", "head and workers among themselves")
    yield PlannedResource("keypair", "Keypair", "Pulumi", "ed25519, private half in the run's record only")
    if section.server_group:
        yield PlannedResource("server-group", "ServerGroup", "Pulumi", section.server_group.value)
    limits = f"makes and ends servers, nothing else; ends after {format_duration(spec.lease)} and a margin"
    yield PlannedResource("credential", "ApplicationCredential", "Pulumi", limits)


def _head(spec: RunSpec) -> Iterator[PlannedResource]:
    section = spec.openstack
    yield PlannedResource("head-port", "Port", "Pulumi", f"on {section.network or 'the run’s subnet'}")
    if section.boot_volume:
        yield PlannedResource("head-volume", "Volume", "Pulumi", format_size(section.boot_volume))
    yield PlannedResource("head", "Instance", "Pulumi", f"{section.flavor_of_head}, {section.image}; Ray head, 0 CPU")
    if section.floating_ip:
        yield PlannedResource("floating-ip", "FloatingIp", "Pulumi", f"from {section.external_network}")


def _workers(spec: RunSpec) -> Iterator[PlannedResource]:
    size, section = spec.workers, spec.openstack
    yield PlannedResource("autoscaler", "process", "dhctl", "Ray's autoscaler v2, on the head")
    worker = f"{section.flavor}: {size.cpus} CPU, {size.gpus} GPU, {format_size(size.memory)}"
    idle = f"leaves after {format_duration(size.idle_timeout)} idle"
    yield PlannedResource(f"{size.min} to {size.max} workers", "server", "autoscaler", f"{worker}; {idle}")
