"""Which pod is a run's head now: dhctl's own has one name for ever, KubeRay gives each new one another."""

from __future__ import annotations

from dataclasses import dataclass

from dhctl.infra.errors import NotUpError
from dhctl.infra.kubernetes.client import Cluster, api_errors
from dhctl.infra.kubernetes.mark import HEAD, ROLE_LABEL, Mark
from dhctl.infra.kubernetes.pod_files import pods_of
from dhctl.infra.ledger import last
from dhctl.infra.record import RunRecord


@dataclass(frozen=True)
class Head:
    """A pod: its name and IP."""

    name: str
    address: str


def namespace_of(record: RunRecord) -> str:
    """Where the run lives: the spec's namespace, or one of its own."""
    return record.spec.kubernetes.namespace or record.run_id


def by_kuberay(record: RunRecord) -> bool:
    """Whether KubeRay's operator makes the run's pods."""
    return record.spec.kubernetes.by_kuberay


def head_name(cluster: Cluster, record: RunRecord) -> str:
    """Name of the head's pod. Raises NotUpError when KubeRay has none; ClusterApiError."""
    return find_head(cluster, record).name if by_kuberay(record) else Mark(record.run_id).name(HEAD)


def find_head(cluster: Cluster, record: RunRecord) -> Head:
    """The head. Raises NotUpError while there is none; ClusterApiError."""
    gone = NotUpError(f"{record.run_id} is not up", f"`dhctl status {record.run_id}` shows what became of it")
    up = last(record.ledger.entries(), "stack.up", "done")
    if not by_kuberay(record):
        if up is None:
            raise gone
        return Head(Mark(record.run_id).name(HEAD), str(up.detail["outputs"]["address"]))
    with api_errors("look for the head"):
        pods = [
            pod
            for pod in pods_of(cluster, namespace_of(record), record.run_id)
            if pod["metadata"]["labels"].get(ROLE_LABEL) == HEAD and not pod["metadata"].get("deletionTimestamp")
        ]
    if not pods:
        raise gone
    newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return Head(newest["metadata"]["name"], str((newest.get("status") or {}).get("podIP") or ""))
