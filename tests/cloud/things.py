"""Things in the project that tests make through the raw API: with a run's mark, and somebody else's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from openstack.connection import Connection

from dhctl.infra.mark import new_run_id
from dhctl.infra.openstack.mark import WORKER, Mark
from dhctl.infra.processes import wait_until

CIDR = "10.66.0.0/24"
BOOT_S = 180
DHCP_S = 60


class MarkedThings:
    """One run's resources, made as the stack and the node provider make them, but one by one."""

    def __init__(self, connection: Connection, expires_in_s: int = 3600) -> None:
        self.api = connection
        self.mark = Mark(new_run_id(), int(time.time()) + expires_in_s)
        self._undo: list[Callable[[], Any]] = []

    @property
    def run_id(self) -> str:
        """Whose they are."""
        return self.mark.run_id

    def network(self) -> tuple[Any, Any]:
        """A network and its subnet, with the port that neutron's DHCP agent makes a moment later."""
        told = {"description": self.mark.text}
        network = self.api.network.create_network(name=self.mark.name("net"), **told)
        self._undo.append(lambda: self.api.network.delete_network(network))
        subnet = self.api.network.create_subnet(
            name=self.mark.name("subnet"), network_id=network.id, ip_version=4, cidr=CIDR, **told
        )
        served = {"network_id": network.id, "device_owner": "network:dhcp"}
        assert wait_until(lambda: bool(list(self.api.network.ports(**served))), DHCP_S, every_s=0.5), "no DHCP port"
        return network, subnet

    def router(self, subnet: Any) -> Any:
        """A router to the outside, with an interface on the subnet."""
        outside = self.api.network.find_network("public", ignore_missing=False)
        router = self.api.network.create_router(
            name=self.mark.name("router"),
            description=self.mark.text,
            external_gateway_info={"network_id": outside.id},
        )
        self._undo.append(lambda: self._remove_router(router, subnet))
        self.api.network.add_interface_to_router(router, subnet=subnet.id)
        return router

    def _remove_router(self, router: Any, subnet: Any) -> None:
        if self.api.network.find_router(router.id):
            if list(self.api.network.ports(device_id=router.id, device_owner="network:router_interface")):
                self.api.network.remove_interface_from_router(router, subnet=subnet.id)
            self.api.network.delete_router(router)

    def port(self, network: Any, group: Any) -> Any:
        """A port of the head's kind."""
        port = self.api.network.create_port(
            name=self.mark.name("head"),
            network_id=network.id,
            security_groups=[group.id],
            description=self.mark.text,
        )
        self._undo.append(lambda: self.api.network.delete_port(port))
        return port

    def floating_ip(self, port: Any = None) -> Any:
        """A floating IP, on the port where there is one. With tags, as the plugin writes them at last."""
        outside = self.api.network.find_network("public", ignore_missing=False)
        address = self.api.network.create_ip(floating_network_id=outside.id, port_id=port.id if port else None)
        self.api.network.set_tags(address, self.mark.tags)
        self._undo.append(lambda: self.api.network.delete_ip(address))
        return address

    def security_group(self) -> Any:
        """A security group."""
        group = self.api.network.create_security_group(name=self.mark.name("members-sg"), description=self.mark.text)
        self._undo.append(lambda: self.api.network.delete_security_group(group))
        return group

    def keypair_and_group(self) -> None:
        """What carries the mark in its name only."""
        self.api.compute.create_keypair(name=self.mark.name("key"))
        group = self.api.compute.create_server_group(name=self.mark.name("group"), policies=["soft-anti-affinity"])
        self._undo.append(lambda: self.api.compute.delete_keypair(self.mark.name("key")))
        self._undo.append(lambda: self.api.compute.delete_server_group(group))

    def server(self, network: Any, flavor: str, status: str) -> Any:
        """A worker that is in this status when it is returned."""
        server = create_server(
            self.api, self.mark.name("w-00000001"), network, flavor, metadata=self.mark.metadata(WORKER)
        )
        self._undo.append(lambda: remove_server(self.api, server.id))
        return wait_for(self.api, server, status)

    def remove(self) -> None:
        """In the opposite order; silent for what is gone."""
        for undo in reversed(self._undo):
            undo()


class Foreign:
    """A server with its port, a free port, a floating IP and a security group that belong to nobody's run."""

    def __init__(self, connection: Connection) -> None:
        self.api = connection
        network = connection.network
        outside = network.find_network("public", ignore_missing=False)
        self.network = network.create_network(name="foreign-net")
        self.subnet = network.create_subnet(
            name="foreign-subnet", network_id=self.network.id, ip_version=4, cidr="10.99.0.0/24"
        )
        self.group = network.create_security_group(name="foreign-sg", description="somebody else's")
        self.port = network.create_port(
            name="foreign-port", network_id=self.network.id, security_groups=[self.group.id]
        )
        self.address = network.create_ip(floating_network_id=outside.id)
        # in BUILD for ever: a server that costs the machine nothing
        self.server = create_server(connection, "foreign-server", self.network, "m1.hang", metadata={"owner": "them"})

    def hold(self, network: Any, group: Any | None = None) -> Any:
        """A port of theirs on another network, with another's security group where one is given."""
        return self.api.network.create_port(
            name="foreign-holder", network_id=network.id, security_groups=[(group or self.group).id]
        )

    def router(self) -> Any:
        """Makes their network reachable from outside."""
        outside = self.api.network.find_network("public", ignore_missing=False)
        router = self.api.network.create_router(name="foreign-router", external_gateway_info={"network_id": outside.id})
        self.api.network.add_interface_to_router(router, subnet=self.subnet.id)
        return router

    def assert_untouched(self) -> None:
        """All of it is still there."""
        network, compute = self.api.network, self.api.compute
        assert network.find_port(self.port.id), "the foreign port is gone"
        assert network.find_ip(self.address.id), "the foreign floating IP is gone"
        assert network.find_security_group(self.group.id), "the foreign security group is gone"
        assert compute.find_server(self.server.id), "the foreign server is gone"

    def remove(self) -> None:
        """At the test's end."""
        remove_server(self.api, self.server.id)
        network = self.api.network
        for port in network.ports(name="foreign-holder"):
            network.delete_port(port)
        network.delete_ip(self.address)
        for router in network.routers(name="foreign-router"):
            network.remove_interface_from_router(router, subnet=self.subnet.id)
            network.delete_router(router)
        network.delete_port(self.port)
        network.delete_security_group(self.group)
        network.delete_network(self.network)


def create_server(connection: Connection, name: str, network: Any, flavor: str, **told: Any) -> Any:
    """Asks for a server; does not wait."""
    image = connection.image.find_image("host", ignore_missing=False)
    size = connection.compute.find_flavor(flavor, ignore_missing=False)
    return connection.compute.create_server(
        name=name, image_id=image.id, flavor_id=size.id, networks=[{"uuid": network.id}], **told
    )


def wait_for(connection: Connection, server: Any, status: str) -> Any:
    """The server when it is in this status. Raises TimeoutError."""
    end = time.monotonic() + BOOT_S
    while time.monotonic() < end:
        found = connection.compute.get_server(server.id)
        if found.status == status:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{server.name} is not {status} after {BOOT_S} s")


def remove_server(connection: Connection, server_id: str) -> None:
    """Deletes and waits; silent when it is gone."""
    connection.compute.delete_server(server_id, ignore_missing=True)
    end = time.monotonic() + BOOT_S
    while connection.compute.find_server(server_id):
        if time.monotonic() > end:
            raise TimeoutError(f"server {server_id} is not gone after {BOOT_S} s")
        time.sleep(0.5)
