"""A cluster whose pods dhctl's own autoscaler makes: what troubles it, and its end before the stack goes.

Logs are saved, nothing new starts, the workers leave. kuberay.py has the same three for a cluster of an operator's.
"""

from __future__ import annotations

import shlex
import tempfile

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Report
from dhctl.infra.head_ledger import adopt_ledger, autoscaler_is_stopped
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError
from dhctl.infra.kubernetes.discovery import PODS, ROLE_BINDINGS, Kind
from dhctl.infra.kubernetes.heads import namespace_of
from dhctl.infra.kubernetes.inventory import Owned, listing_of
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.pod_exec import PodEndpoint, UnreachablePodError, require, run_in_pod
from dhctl.infra.kubernetes.pod_files import fetch, save_logs
from dhctl.infra.kubernetes.sweep import Sweep
from dhctl.infra.kubernetes.troubles import of_run
from dhctl.infra.node.layout import CODE_FOLDER, HOME
from dhctl.infra.node.stop import STOP_MODULE
from dhctl.infra.record import RunRecord

LOG_FOLDERS = (f"{HOME}/log", f"{HOME}/ray/session_latest/logs")
"""What is worth copying from a head: dhctl's own logs, journal and events; Ray's logs."""

STOP_S = 20.0
FETCH_S = 120.0
HEAD_GONE_S = 45.0
WORKER_GRACE_S = 1
"""No job runs any more, and Ray as a container's first process hears no SIGTERM. With less, the API would not wait for
the end of its containers."""


def troubles(cluster: Cluster, record: RunRecord) -> list[str]:
    """What the scheduler and the kubelets tell of the pods, and the head's autoscaler of workers. Never raises."""
    return of_run(cluster, namespace_of(record), record.run_id)


def release_nodes(cluster: Cluster, record: RunRecord, report: Report) -> None:
    """Stops the autoscaler in the head's pod, takes its right to make pods away in any case, asks for the deletion of
    the workers, then of the head: all of them end while Pulumi starts. Services behind a load balancer go before what
    is under them.

    A head in which the autoscaler could not be stopped is gone before the workers are listed: it may have rights of a
    service account that is not the run's. Raises ClusterApiError, at the end, when something could not be listed.
    """
    head = head_of(cluster, record)
    stopped = autoscaler_is_stopped(record.ledger.entries())
    stopped = stopped or not _may_live(head, record.run_id) or _try_to_stop(record, head)
    sweep = Sweep(cluster, head.namespace, record.run_id, record.ledger, report)
    work = _Listed(record.run_id, head)
    sweep.end(work.of(ROLE_BINDINGS, HEAD))
    if not stopped:
        sweep.end(work.of(PODS, HEAD), HEAD_GONE_S)
    sweep.ask(work.of(PODS, WORKER), WORKER_GRACE_S)
    sweep.ask(work.of(PODS, HEAD))
    sweep.end_balancers()
    if work.trouble:
        raise work.trouble


def head_of(cluster: Cluster, record: RunRecord) -> PodEndpoint:
    """The head's pod, where dhctl makes it."""
    return PodEndpoint(cluster, namespace_of(record), Mark(record.run_id).name(HEAD), record.spec.kubernetes.python)


class _Listed:
    """The run's objects by kind and role. A list that is not possible does not keep the other ones from their end."""

    def __init__(self, run_id: str, head: PodEndpoint) -> None:
        self._run_id, self._head = run_id, head
        self.trouble: ClusterApiError | None = None

    def of(self, kind: Kind, part: str) -> list[Owned]:
        """A binding goes by its name: its role is that of all that gives access."""
        listing = listing_of(self._head.cluster, kind, self._head.namespace, self._run_id)
        if listing.error and not (kind == ROLE_BINDINGS and listing.status == 403):
            what = f"cannot list {kind.name}: {listing.error}"
            self.trouble = ClusterApiError(what, "try again later", listing.status)
        name = Mark(self._run_id).name(part)
        return [o for o in listing.found if (o.name == name if kind == ROLE_BINDINGS else o.role == part)]


def _may_live(head: PodEndpoint, run_id: str) -> bool:
    """Whether there is a head, as far as it can be told."""
    pods = listing_of(head.cluster, PODS, head.namespace, run_id)
    return bool(pods.error) or any(pod.role == HEAD for pod in pods.found)


def _try_to_stop(record: RunRecord, head: PodEndpoint) -> bool:
    """A head that is gone or broken has no autoscaler worth stopping: its rights go next."""
    try:
        with record.ledger.ending("autoscaler.stop"):
            stop_autoscaler(head)
    except ClusterError as error:
        record.ledger.note("autoscaler.stop", "note", unreachable=str(error)[:300])
        return False
    return True


def stop_autoscaler(head: PodEndpoint) -> None:
    """Ends the autoscaler and keeps anything new from starting. Can be repeated. Raises ClusterError."""
    path = f"PYTHONPATH={CODE_FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}"
    command = ["sh", "-c", f"{path} exec {shlex.quote(head.python)} -m {STOP_MODULE}"]
    with tempfile.TemporaryFile() as printed:
        require(head, run_in_pod(head, command, printed, STOP_S), "stopping the autoscaler")


def collect(cluster: Cluster, record: RunRecord) -> None:
    """Stops the autoscaler and copies the head's logs, which are whole then, into the record; with them what all pods
    of the run printed, also where the head cannot be reached. Silent about a head that is gone.

    Raises ClusterError when the head cannot be reached, or has none of the logs; ClusterApiError, StateFolderError.
    """
    head = head_of(cluster, record)
    try:
        if _may_live(head, record.run_id):
            _collect(record, head)
    finally:
        save_logs(cluster, head.namespace, record.run_id, record.logs_dir / "pods")


def _collect(record: RunRecord, head: PodEndpoint) -> None:
    try:
        with record.ledger.ending("autoscaler.stop"):
            stop_autoscaler(head)
    except UnreachablePodError:
        raise
    except ClusterError:
        pass  # its log may tell why it does not stop; the head goes with the workers' release
    fetch(head, LOG_FOLDERS, record.logs_dir, FETCH_S)
    adopt_ledger(record)
