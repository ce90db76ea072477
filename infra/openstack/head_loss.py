"""A head on OpenStack that is lost: how that is seen, and what goes before the next one is made."""

from __future__ import annotations

from openstack import exceptions as sdk_errors

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Report
from dhctl.infra.openstack.cloud import cloud_errors
from dhctl.infra.openstack.kinds import KINDS, Project
from dhctl.infra.openstack.sweep import Sweep
from dhctl.infra.record import RunRecord

GONE = {"DELETED", "SOFT_DELETED", "ERROR", "SHUTOFF"}
"""States of a server that nothing but somebody's hand ends. A reboot is none: its head starts Ray again."""


def lost_head(project: Project, server: str) -> str:
    """Why the head's server is gone for good; "" while it is there, or comes back by itself. Raises CloudError."""
    with cloud_errors("look at the head's server"):
        try:
            found = project.connection.compute.get_server(server)
        except sdk_errors.NotFoundException:
            return f"server {server} is gone"
    return f"server {found.name} is {found.status}" if found.status in GONE else ""


def clear_head(record: RunRecord, project: Project, report: Report) -> None:
    """Deletes the head's server and the workers', whose Ray ends without it. Port, address and credential stay.

    Raises ClusterError when a server does not go, CloudError.
    """
    servers = next(kind for kind in KINDS if kind.name == "server")
    left = Sweep(project, record.run_id, record.ledger, report).end_kind(servers)
    if left:
        raise ClusterError(f"{len(left)} servers of the lost head do not go", "ask the cloud's operator")
