"""The site's things that a spec names, looked up: image, flavors, networks, roles. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openstack.connection import Connection

from dhctl.infra.openstack.cloud import CloudError, cloud_errors
from dhctl.infra.openstack.flavors import FlavorSize
from dhctl.infra.openstack.lookup import Found, find_flavors, find_image, find_network
from dhctl.infra.openstack.section import OpenStackSection

MEMBER = "member"


@dataclass(frozen=True)
class Choices:
    """What the spec's names mean at this site, as ids."""

    image_id: str
    head_flavor_id: str
    worker_flavor_id: str
    worker_size: FlavorSize
    external_network_id: str
    external_network: str
    """The external network's name: floating IPs are asked for by it."""
    network_id: str
    """The existing network, "" when the run makes its own."""
    roles: tuple[str, ...]
    """Roles that the nodes' credential gets: `member` where the user has it, else all of the user's."""
    image_digest: str = ""
    """The image's hash as glance has it, such as sha512:...; "" where it has none."""


def look_up(section: OpenStackSection, connection: Connection) -> Choices:
    """What admission has checked, once more. Raises CloudError when a thing is gone since."""
    with cloud_errors("look up what the spec names"):
        image = _must(find_image(connection, section.image or ""))
        worker, head = map(_must, find_flavors(connection, section.flavor or "", section.flavor_of_head or ""))
        outside = _network(connection, section.external_network, "openstack.external_network")
        given = _network(connection, section.network, "openstack.network")
        roles = tuple(connection.session.auth.get_access(connection.session).role_names)  # type: ignore[union-attr]
    return Choices(
        image_id=str(image.id),
        head_flavor_id=str(head.id),
        worker_flavor_id=str(worker.id),
        worker_size=FlavorSize.of(worker),
        external_network_id=str(outside.id) if outside else "",
        external_network=str(outside.name) if outside else "",
        network_id=str(given.id) if given else "",
        roles=(MEMBER,) if MEMBER in roles else roles,
        image_digest=_digest_of(image),
    )


def _network(connection: Connection, name: str | None, key: str) -> Any:
    return _must(find_network(connection, name, key)) if name else None


def _digest_of(image: Any) -> str:
    """Older glances have an MD5 alone."""
    if getattr(image, "hash_value", None):
        return f"{image.hash_algo}:{image.hash_value}"
    return f"md5:{image.checksum}" if getattr(image, "checksum", None) else ""


def _must(found: Found) -> Any:
    if found.item is None:
        raise CloudError(found.problem)
    return found.item
