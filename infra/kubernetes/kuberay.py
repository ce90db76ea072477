"""A run whose pods KubeRay's operator makes: whether that can be, what goes wrong, and its end."""

from __future__ import annotations

from collections.abc import Iterator

from dhctl.infra.errors import DhctlError, NotUpError
from dhctl.infra.events import Report
from dhctl.infra.kubernetes.admission_cluster import may
from dhctl.infra.kubernetes.client import Cluster
from dhctl.infra.kubernetes.discovery import RAY_CLUSTERS
from dhctl.infra.kubernetes.heads import find_head, namespace_of
from dhctl.infra.kubernetes.inventory import RAISED, listing_of
from dhctl.infra.kubernetes.looking import look
from dhctl.infra.kubernetes.pod_exec import PodEndpoint
from dhctl.infra.kubernetes.pod_files import fetch, save_logs
from dhctl.infra.kubernetes.ray_cluster import RAY_TEMP
from dhctl.infra.kubernetes.readiness import judge
from dhctl.infra.kubernetes.rights import KUBERAY_RIGHTS
from dhctl.infra.kubernetes.section import KubernetesSection, RayMode
from dhctl.infra.kubernetes.sweep import Sweep
from dhctl.infra.kubernetes.troubles import of_pods
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement

API = f"/apis/{RAY_CLUSTERS.api_version}"
FETCH_S = 120.0


def settled(section: KubernetesSection, cluster: Cluster) -> KubernetesSection:
    """The section with `ray: auto` decided: KubeRay where its API is served and the caller may make a RayCluster.

    Raises ClusterApiError.
    """
    if section.ray is not RayMode.AUTO:
        return section
    namespace = section.namespace or ""
    allowed = _served(cluster) and all(may(cluster, namespace, [], r, verb) for r in KUBERAY_RIGHTS for verb in r.verbs)
    return section.model_copy(update={"ray": RayMode.KUBERAY if allowed else RayMode.PODS})


def requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """Who makes Ray's pods. Rights have rows of their own. Raises ClusterApiError."""
    wanted = spec.kubernetes.ray
    if not spec.kubernetes.by_kuberay:
        yield Requirement("Ray's pods", wanted.value, "made by dhctl")
        return
    problem = "the cluster serves no RayCluster of ray.io/v1; set kubernetes.ray to pods, or ask for KubeRay"
    served = _served(cluster)
    yield Requirement(
        "Ray's pods", wanted.value, "ray.io/v1 is served" if served else "none", "" if served else problem
    )


def _served(cluster: Cluster) -> bool:
    kinds = (look(cluster, API).body or {}).get("resources") or ()
    return any(kind.get("name") == RAY_CLUSTERS.plural for kind in kinds)


def troubles(cluster: Cluster, record: RunRecord) -> list[str]:
    """What the RayCluster's conditions and its pods tell. Never raises: this only explains."""
    namespace, found = namespace_of(record), list[str]()
    try:
        told = judge(cluster, cluster.call("GET", RAY_CLUSTERS.path(namespace, record.run_id)))
        found += [f"RayCluster {record.run_id}: {told.told}"] if told.told else []
    except (*RAISED, DhctlError):
        pass  # the pods may tell
    return [*found, *of_pods(cluster, namespace, record.run_id)]


def release_nodes(cluster: Cluster, record: RunRecord, report: Report) -> None:
    """Deletes the RayCluster, and waits until it is gone with all that the operator made; head and autoscaler too."""
    namespace = namespace_of(record)
    sweep = Sweep(cluster, namespace, record.run_id, record.ledger, report)
    sweep.end(listing_of(cluster, RAY_CLUSTERS, namespace, record.run_id).found)
    sweep.end_balancers()


def collect(cluster: Cluster, record: RunRecord) -> None:
    """Copies Ray's logs from the head, and what all pods printed, into the record. Silent about a head that is gone.

    Raises ClusterError, ClusterApiError, StateFolderError.
    """
    namespace = namespace_of(record)
    try:
        head = PodEndpoint(cluster, namespace, find_head(cluster, record).name, record.spec.kubernetes.python)
        fetch(head, [f"{RAY_TEMP}/session_latest/logs"], record.logs_dir, FETCH_S)
    except NotUpError:
        return
    finally:
        save_logs(cluster, namespace, record.run_id, record.logs_dir / "pods")
