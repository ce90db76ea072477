"""A head on Kubernetes that is lost: how that is seen, and what goes before the next one is made."""

from __future__ import annotations

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Report, Warned
from dhctl.infra.kubernetes import apply, kuberay
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError
from dhctl.infra.kubernetes.discovery import PODS
from dhctl.infra.kubernetes.heads import by_kuberay, namespace_of
from dhctl.infra.kubernetes.inventory import listing_of
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.readiness import end_of
from dhctl.infra.kubernetes.sweep import Sweep
from dhctl.infra.record import RunRecord

GONE_S = 60.0
"""How long pods may take to be gone: those of a node that is dead never are."""


def lost_head(cluster: Cluster, record: RunRecord) -> str:
    """Why the head's pod is gone for good; "" while it is there. KubeRay's operator makes another one by itself.

    Raises ClusterApiError.
    """
    if by_kuberay(record):
        return ""
    name = Mark(record.run_id).name(HEAD)
    metadata = {"name": name, "namespace": namespace_of(record)}
    found = apply.read(cluster, {"apiVersion": PODS.api_version, "kind": PODS.kind, "metadata": metadata})
    if found is None:
        return f"pod {name} is gone"
    if found["metadata"].get("deletionTimestamp"):
        return f"pod {name} is being deleted"
    if (found.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return f"pod {name} ended: {end_of(found)}"
    return ""


def clear_head(cluster: Cluster, record: RunRecord, report: Report) -> None:
    """Ends the head's pod and the workers', whose Ray ends without it. A RayCluster, whose operator did not help, goes
    whole.

    A worker whose end is not confirmed, as on a dead node, keeps nobody: a warning. Raises ClusterError when the head's
    pod does not go, because the next one has its name; ClusterApiError.
    """
    if by_kuberay(record):
        kuberay.release_nodes(cluster, record, report)
        return
    namespace = namespace_of(record)
    listing = listing_of(cluster, PODS, namespace, record.run_id)
    if listing.error:
        raise ClusterApiError(f"cannot list pods: {listing.error}", "try again later", listing.status)
    those = [pod for pod in listing.found if pod.role in (HEAD, WORKER)]
    left = Sweep(cluster, namespace, record.run_id, record.ledger, report).end(those, GONE_S)
    for pod in [pod for pod in those if pod.id in left]:
        told = f"pod {pod.name} of the lost head does not go"
        if pod.role == HEAD:
            raise ClusterError(told, "is its node alive? `kubectl get nodes` tells")
        report(Warned(f"{told}; `down` will look again"))
