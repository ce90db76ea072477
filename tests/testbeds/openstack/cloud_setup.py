"""What a fresh OpenStack is given: accounts and catalog, then the external network, flavors and the image."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from testbeds.errors import TestbedError
from testbeds.openstack.layout import (
    ENDPOINTS,
    EXTERNAL_ADDRESS,
    EXTERNAL_CIDR,
    PASSWORD,
    PROJECT,
    Layout,
)

READY_LIMIT_S = 180
AGENTS = 4
HOST_IMAGE = "host"
"""Its instances have this machine's own root file system."""


@dataclass(frozen=True)
class Flavor:
    """One row of the table below."""

    name: str
    ram_mib: int
    vcpus: int
    disk_gib: int
    extra_specs: dict[str, str] = field(default_factory=dict)


FLAVORS = (
    Flavor("m1.tiny", 512, 1, 1),
    Flavor("m1.small", 2048, 1, 4),
    Flavor("m1.medium", 4096, 2, 8),
    # Within every default quota, and larger than any host: the scheduler finds "no valid host".
    Flavor("m1.huge", 512, 1, 100_000),
    # Servers that go to ERROR, and that stay in BUILD: nova_driver/native_driver.py.
    Flavor("m1.fail", 1024, 1, 1, {"dhctl-testbed:spawn": "fail"}),
    Flavor("m1.hang", 1024, 1, 1, {"dhctl-testbed:spawn": "hang"}),
)


def connect(layout: Layout, cloud: str) -> Connection:
    """A connection by the testbed's own clouds.yaml, whatever the environment says."""
    config = OpenStackConfig(config_files=[str(layout.clouds_yaml)], load_envvars=False)
    return Connection(config=config.get_one(cloud=cloud), app_name="dhctl-testbed")


def make_accounts(admin: Connection) -> None:
    """Projects, users, roles and the catalog, in databases that have keystone's bootstrap only."""
    identity: Any = admin.identity  # typed as version 2 or 3
    roles = {role.name: role for role in identity.roles()}
    accounts = (("service", "svc", ("admin",)), (PROJECT, "demo", ("member", "reader")))
    for project_name, user_name, role_names in accounts:
        project = identity.create_project(name=project_name, domain_id="default")
        user = identity.create_user(
            name=user_name, password=PASSWORD, domain_id="default", default_project_id=project.id
        )
        for role_name in role_names:
            identity.assign_project_role_to_user(project, user, roles[role_name])
    have = {service.type for service in identity.services()}
    names = {"image": "glance", "placement": "placement", "compute": "nova", "network": "neutron"}
    for kind, name in names.items():
        if kind not in have:
            service = identity.create_service(name=name, type=kind)
            for interface in ("public", "internal", "admin"):
                identity.create_endpoint(
                    service_id=service.id, interface=interface, url=ENDPOINTS[kind], region_id="RegionOne"
                )


def wait_ready(admin: Connection) -> None:
    """Until a server could be made: the compute host is known everywhere and every agent is alive."""
    end = time.monotonic() + READY_LIMIT_S
    why = ""
    while time.monotonic() < end:
        try:
            why = _not_ready(admin)
        except (exceptions.SDKException, exceptions.HttpException) as trouble:
            why = str(trouble)
        if not why:
            return
        time.sleep(0.5)
    raise TestbedError(f"the cloud is not ready after {READY_LIMIT_S} s: {why}; look into its logs")


def _not_ready(admin: Connection) -> str:
    if not any(service.binary == "nova-compute" and service.state == "up" for service in admin.compute.services()):
        return "nova-compute is not up"
    if not list(admin.placement.resource_providers()):
        return "placement knows no host"
    alive = {agent.agent_type for agent in admin.network.agents() if agent.is_alive}
    if len(alive) < AGENTS:
        return f"only {len(alive)} of {AGENTS} agents of neutron are alive: {', '.join(sorted(alive))}"
    return "" if list(admin.compute.hypervisors()) else "the compute host is in no cell yet"


def make_site(admin: Connection) -> None:
    """The external network `public`, the flavors and the image `host`."""
    network = admin.network.create_network(
        name="public",
        is_router_external=True,
        is_shared=False,
        provider_network_type="flat",
        provider_physical_network="public",
    )
    prefix = EXTERNAL_CIDR.rsplit(".", 1)[0]
    admin.network.create_subnet(
        name="public",
        network_id=network.id,
        ip_version=4,
        cidr=EXTERNAL_CIDR,
        gateway_ip=EXTERNAL_ADDRESS,
        is_dhcp_enabled=False,
        allocation_pools=[{"start": f"{prefix}.10", "end": f"{prefix}.250"}],
    )
    for row in FLAVORS:
        flavor = admin.compute.create_flavor(name=row.name, ram=row.ram_mib, vcpus=row.vcpus, disk=row.disk_gib)
        if row.extra_specs:
            admin.compute.create_flavor_extra_specs(flavor, row.extra_specs)
    image: dict[str, Any] = {
        "disk_format": "raw",
        "container_format": "bare",
        "visibility": "public",
        "os_distro": "ostb-host",
    }
    admin.create_image(HOST_IMAGE, data=b"host\n", wait=True, timeout=60, **image)
