"""When an object counts as ready, kind by kind, and the cluster's own words while it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import NO_SERVER, Cluster, patiently

HOPELESS = {
    "InvalidImageName": "set kubernetes.image to the image's reference",
    "ErrImageNeverPull": "the image must be on the node already; set kubernetes.image to another",
    "CreateContainerConfigError": "check kubernetes.image and kubernetes.volumes",
    "CreateContainerError": "check kubernetes.image and kubernetes.volumes",
    "RunContainerError": "check kubernetes.image and kubernetes.python",
}
"""Reasons of a waiting container that do not go away, and what to do."""

IMAGE = {"ErrImagePull", "ImagePullBackOff"}
CHECK_IMAGE = "check kubernetes.image and kubernetes.image_pull_secrets"
CRASHES = 3
"""So often may a container that is started again in place end before the first time that it is ready."""


@dataclass(frozen=True)
class Look:
    """What one look at an object says. `told` is why it is not ready."""

    ready: bool = False
    failed: bool = False
    told: str = ""
    next_step: str = ""


READY = Look(ready=True)


def judge(cluster: Cluster, found: Mapping[str, Any]) -> Look:
    """By the object's kind; kinds without a rule are ready when they are there. Raises no error of the API."""
    rule = _RULES.get(found["kind"])
    return rule(cluster, found) if rule else READY


def address_of(found: Mapping[str, Any]) -> str:
    """IP of a pod, or of a RayCluster's head; "" while a node has not taken it, and of all other kinds."""
    status = found.get("status") or {}
    return str(status.get("podIP") or (status.get("head") or {}).get("podIP") or "")


def has_address(cluster: Cluster, found: Mapping[str, Any]) -> Look:
    """A pod, or a RayCluster's head, that a node has taken."""
    return READY if address_of(found) else judge(cluster, found)


def pod(cluster: Cluster, found: Mapping[str, Any]) -> Look:
    """Ready, or what keeps it: the scheduler's, the image's or the container's reason."""
    status = found.get("status") or {}
    if condition(found, "Ready").get("status") == "True":
        return READY
    if status.get("phase") in ("Failed", "Succeeded"):
        return Look(failed=True, told=end_of(found))
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, told = waiting.get("reason", ""), f"{waiting.get('reason')} {waiting.get('message') or ''}".strip()
        if reason in HOPELESS:
            return Look(failed=True, told=told, next_step=HOPELESS[reason])
        if reason in IMAGE:
            return Look(told=told, next_step=CHECK_IMAGE)
        if int(container.get("restartCount") or 0) >= CRASHES:
            return Look(failed=True, told=end_of(found), next_step="its log says more: `dhctl logs`")
    scheduled = condition(found, "PodScheduled")
    if scheduled.get("status") == "False":
        told = f"no node takes it: {scheduled.get('message') or scheduled.get('reason')}"
        return Look(told=told, next_step="free room, or change kubernetes.node_selector, tolerations or sizes")
    return Look(told=event(cluster, found) or f"it is {str(status.get('phase', 'new')).lower()}")


def end_of(found: Mapping[str, Any]) -> str:
    """Why a pod or its container ended, such as OOMKilled, exit status 137."""
    status = found.get("status") or {}
    for container in status.get("containerStatuses") or ():
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            ended = state.get("terminated")
            if ended:
                told = f"{ended.get('reason') or 'ended'}, exit status {ended.get('exitCode')}"
                return f"{told}: {ended['message'].strip()[-300:]}" if ended.get("message") else told
    reasons = [str(text) for text in (status.get("reason"), status.get("message")) if text]
    return ": ".join(reasons) or f"it is {str(status.get('phase', 'unknown')).lower()}"


def condition(found: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type; empty when there is none."""
    for row in (found.get("status") or {}).get("conditions") or ():
        if row.get("type") == kind:
            return dict(row)
    return {}


def event(cluster: Cluster, found: Mapping[str, Any]) -> str:
    """The newest warning about an object; "" when there is none, or it cannot be read."""
    metadata = found["metadata"]
    path = f"/api/v1/namespaces/{metadata.get('namespace') or cluster.namespace}/events"
    query = [("fieldSelector", f"involvedObject.name={metadata['name']},type=Warning")]
    try:
        rows = cluster.call("GET", path, query=query).get("items") or []
    except (ApiException, *NO_SERVER):
        return ""
    ours = [row for row in rows if row.get("involvedObject", {}).get("uid") in (None, "", metadata.get("uid"))]
    newest: Mapping[str, Any] = max(
        ours, key=lambda row: row.get("lastTimestamp") or row.get("eventTime") or "", default={}
    )
    return " ".join(str(newest.get("message") or "").split())


def _claim(cluster: Cluster, found: Mapping[str, Any]) -> Look:
    phase = (found.get("status") or {}).get("phase", "Pending")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return Look(failed=True, told="its volume is lost", next_step="make the run anew")
    if _waits_for_pods(cluster, found):
        return READY
    modes = (found.get("spec") or {}).get("accessModes") or ()
    able = " to one whose volumes several nodes can write to (ReadWriteMany)" if "ReadWriteMany" in modes else ""
    told = event(cluster, found) or "no volume is bound to it"
    return Look(told=told, next_step=f"set kubernetes.storage_class{able}")


def _waits_for_pods(cluster: Cluster, found: Mapping[str, Any]) -> bool:
    """Whether its storage class binds with the first pod; also where a tenant may not read the class."""
    name = (found.get("spec") or {}).get("storageClassName")
    if not name:
        return False
    try:
        told = patiently(lambda: cluster.call("GET", f"/apis/storage.k8s.io/v1/storageclasses/{name}"))
    except (ApiException, *NO_SERVER) as error:
        return getattr(error, "status", 0) == 403
    return bool(told.get("volumeBindingMode") == "WaitForFirstConsumer")


def _job(_: Cluster, found: Mapping[str, Any]) -> Look:
    if condition(found, "Complete").get("status") == "True":
        return READY
    failed = condition(found, "Failed")
    if failed.get("status") == "True":
        return Look(failed=True, told=failed.get("message") or failed.get("reason") or "its pods failed")
    return Look(told="it is not complete")


def _namespace(_: Cluster, found: Mapping[str, Any]) -> Look:
    phase = (found.get("status") or {}).get("phase", "Active")
    return READY if phase == "Active" else Look(failed=True, told=f"it is {phase.lower()}")


def _ray_cluster(cluster: Cluster, found: Mapping[str, Any]) -> Look:
    """By the conditions of KubeRay's operator; without any it does not look at this namespace, or does not run."""
    status = found.get("status") or {}
    if condition(found, "HeadPodReady").get("status") == "True":
        return READY
    if status.get("state") == "failed":
        return Look(failed=True, told=str(status.get("reason") or "KubeRay gives no reason"))
    if not status:
        told = event(cluster, found) or "KubeRay's operator has not taken it"
        return Look(
            told=told, next_step="does the operator run, and watch this namespace? Else set kubernetes.ray: pods"
        )
    waits = [row for row in status.get("conditions") or () if row.get("status") == "False" and row.get("message")]
    words = [f"{row['type']}: {row['message']}" for row in waits if row["type"] in ("HeadPodReady", "ReplicaFailure")]
    return Look(told="; ".join(words) or event(cluster, found) or "its head is not ready")


_RULES: Mapping[str, Callable[[Cluster, Mapping[str, Any]], Look]] = {
    "Pod": pod,
    "PersistentVolumeClaim": _claim,
    "Job": _job,
    "Namespace": _namespace,
    "RayCluster": _ray_cluster,
}
