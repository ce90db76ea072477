"""The end of a cluster on OpenStack before its stack goes: nothing new may start, and the servers leave.

They leave while Pulumi starts: what they hold (subnet, security group) goes after them, and the plugin waits for it
as long as `components.HELD` says. The sweep waits for the rest.
"""

from __future__ import annotations

from dhctl.infra import ssh
from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Report
from dhctl.infra.head_ledger import adopt_ledger, autoscaler_is_stopped
from dhctl.infra.ledger import Ledger
from dhctl.infra.openstack.inventory import find
from dhctl.infra.openstack.kinds import KINDS, Kind, Owned, Project
from dhctl.infra.openstack.sweep import Sweep
from dhctl.infra.openstack.userdata import LOG_FOLDERS, STOP_AUTOSCALER
from dhctl.infra.record import RunRecord
from dhctl.infra.ssh import SshEndpoint

STOP_S = 20.0
FETCH_S = 60.0


def release_nodes(record: RunRecord, project: Project, head: SshEndpoint | None, report: Report) -> None:
    """Stops the autoscaler on the head where it can be reached, takes its credential away in any case, asks for the
    deletion of all servers.

    Raises CloudError when the project cannot be listed.
    """
    if head and not autoscaler_is_stopped(record.ledger.entries()):
        _stop_autoscaler(record.ledger, head)
    sweep = Sweep(project, record.run_id, record.ledger, report)
    sweep.end_kind(_kind("application credential"))
    sweep.ask_kind(_kind("server"))


def servers(record: RunRecord, project: Project) -> list[Owned]:
    """Servers of the run that are still there. Raises CloudError."""
    return find(project, _kind("server"), record.run_id)


def _stop_autoscaler(ledger: Ledger, head: SshEndpoint) -> None:
    """A head that is gone or broken has no autoscaler worth stopping: its credential goes next."""
    try:
        with ledger.ending("autoscaler.stop"):
            ssh.require(head, ssh.run(head, ["sh", "-c", STOP_AUTOSCALER], None, STOP_S), "stop the autoscaler")
    except ClusterError as error:
        ledger.note("autoscaler.stop", "note", unreachable=str(error)[:300])


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def collect(record: RunRecord, head: SshEndpoint) -> None:
    """Stops the autoscaler and copies the head's logs, which are whole then, into the record.

    Raises ClusterError when the head cannot be reached, or has none of the logs.
    """
    try:
        with record.ledger.ending("autoscaler.stop"):
            ssh.fetch(head, LOG_FOLDERS, record.logs_dir, first=STOP_AUTOSCALER, timeout_s=FETCH_S)
    except ssh.UnreachableError:
        raise
    except ClusterError:  # an autoscaler that does not stop: its log may tell why
        ssh.fetch(head, LOG_FOLDERS, record.logs_dir, timeout_s=FETCH_S)
    adopt_ledger(record)
