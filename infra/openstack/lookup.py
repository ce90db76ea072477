"""Images, flavors and networks by name or id, as a spec names them: exactly one, or a sentence why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from openstack.connection import Connection

from dhctl.infra.yaml_model import nearest

SHOWN = 8
"""How many ids or known names a sentence lists."""


@dataclass(frozen=True)
class Found:
    """What a name or id stands for. `item` is the SDK's resource; None where `problem` says why."""

    item: Any = None
    problem: str = ""

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.item.name} ({self.item.id})" if self.item else "not found"


def pick(wanted: str, listed: Iterable[Any], kind: str, key: str) -> Found:
    """The one of `listed` with this id, else with this name. `key` is the spec's, for the next step."""
    known = list(listed)
    same_id = [item for item in known if item.id == wanted]
    matching = same_id or [item for item in known if item.name == wanted]
    match matching:
        case [item]:
            return Found(item)
        case []:
            names = sorted({str(item.name or item.id) for item in known})
            close = nearest(wanted, names) if len(names) <= SHOWN else nearest(wanted, names).partition(" (known")[0]
            return Found(None, f"no {kind} '{wanted}' is to be seen in this project{close}; set {key} to one that is")
        case _:
            ids = ", ".join(str(item.id) for item in matching[:SHOWN])
            return Found(None, f"{len(matching)} {kind}s are called '{wanted}' ({ids}); set {key} to one of these ids")


def find_image(connection: Connection, wanted: str) -> Found:
    """By name first: a site may have thousands. Hidden images are found by id only, as glance wants it."""
    named = list(connection.image.images(name=wanted))
    if named:
        return pick(wanted, named, "image", "openstack.image")
    by_id = connection.image.find_image(wanted, ignore_missing=True)
    listed = [by_id] if by_id else connection.image.images()
    return pick(wanted, listed, "image", "openstack.image")


def find_flavors(connection: Connection, worker: str, head: str) -> tuple[Found, Found]:
    """Flavors of worker and head, with their extra specs where the site's policy shows them; one listing."""
    listed = list(connection.compute.flavors(details=True))
    head_key = "openstack.flavor" if head == worker else "openstack.head_flavor"
    return pick(worker, listed, "flavor", "openstack.flavor"), pick(head, listed, "flavor", head_key)


def find_network(connection: Connection, wanted: str, key: str) -> Found:
    """An existing network that this project can see, own, shared or external."""
    network = connection.network
    listed = list(network.networks(name=wanted)) or list(network.networks(id=wanted)) or network.networks()
    return pick(wanted, listed, "network", key)


def external_networks(connection: Connection) -> list[str]:
    """Names of those that can take a router's gateway, for a sentence."""
    return [str(found.name) for found in connection.network.networks(is_router_external=True)][:SHOWN]
