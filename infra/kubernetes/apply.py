"""One object at a time: server-side apply, reading, waiting until it is ready, deletion that proves whose it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.errors import ClusterError
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, api_errors, patiently, reason_of, status_of
from dhctl.infra.kubernetes.discovery import Kind
from dhctl.infra.kubernetes.mark import RUN_LABEL
from dhctl.infra.kubernetes.readiness import Look, judge

Manifest = dict[str, Any]

FIELD_MANAGER = "dhctl"
APPLY = "application/apply-patch+yaml"
READY_S, GONE_S, HELD_S = 300.0, 180.0, 30.0
"""How long an object may take to be ready; to be gone; and to be gone while only a finalizer of others holds it."""

AGAIN_S = 5.0
"""For what was waited for in vain already."""

PODS_GONE_S = 60.0
"""How long a pod may take to be gone, or what waits for pods: on a dead node none is, and the sweep looks again."""

RACED_S = 15.0
"""How long a write is repeated that lost a race: the API server itself tries a few times, then answers 409."""

FOREGROUND = "foregroundDeletion"
"""Finalizer of the cluster's own: the object goes when all that it owns is gone."""

OWNERS = {"CronJob", "Job", "RayCluster"}
"""Kinds that own others here, beside the run object; for all else that is a detour by the garbage collector."""

LOOKS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Pauses between looks; the last one stays."""


class ForeignObjectError(ClusterApiError):
    """An object of that name is there and does not carry the run's mark."""


class ConflictError(ClusterApiError):
    """Another manager has set a field to something else."""


def kind_of(cluster: Cluster, api_version: str, kind: str) -> Kind:
    """By discovery, which is asked once a group. Raises ClusterApiError where the kind is not served."""
    with api_errors(f"find out how {kind} is served"):
        try:
            found = _kinds(cluster, api_version)
        except ApiException as error:
            if status_of(error) != 404:
                raise
            found = {}
    if kind not in found:
        raise ClusterApiError(f"{cluster.host} serves no {kind} of {api_version}", "is the cluster too old for dhctl?")
    return found[kind]


@lru_cache(maxsize=256)
def _kinds(cluster: Cluster, api_version: str) -> dict[str, Kind]:
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    group, _, version = api_version.rpartition("/")
    told = patiently(lambda: cluster.call("GET", base))
    return {
        row["kind"]: Kind(group, version, row["name"], row["kind"], bool(row["namespaced"]))
        for row in told["resources"]
        if "/" not in row["name"]
    }


def apply(cluster: Cluster, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Manifest:
    """Makes the object, or brings it to what the manifest says; the object as the API has it then.

    Can be repeated, also after an answer that was lost. With `dry_run` the API server checks all and stores nothing.
    Raises ForeignObjectError where another's object has the name, ConflictError, ClusterApiError.
    """
    what = _named(manifest)
    there = read(cluster, manifest)
    if there is not None:
        _require_ours(there, manifest["metadata"].get("labels", {}).get(RUN_LABEL, ""))
        if there["metadata"].get("deletionTimestamp") and not dry_run:
            raise ClusterApiError(f"{what} is being deleted", "try again when it is gone")
    query = [("fieldManager", FIELD_MANAGER), *([("dryRun", "All")] if dry_run else [])]
    path = _path(cluster, manifest)
    with api_errors(f"{'check' if dry_run else 'apply'} {what}"):
        try:
            return _written(lambda: cluster.call("PATCH", path, dict(manifest), content_type=APPLY, query=query))
        except ApiException as error:
            if status_of(error) != 409:
                raise
            next_step = "end what else manages it, or take it away"
            raise ConflictError(f"cannot apply {what}: {reason_of(error)}", next_step, 409) from error


def _written(call: Callable[[], Manifest]) -> Manifest:
    """The answer of a write that can be repeated, which is repeated while it loses races."""
    until, pauses = time.monotonic() + RACED_S, iter(LOOKS_S)
    while True:
        try:
            return patiently(call)
        except ApiException as error:
            if status_of(error) != 409 or _of_another_manager(error) or time.monotonic() >= until:
                raise
        time.sleep(next(pauses, LOOKS_S[-1]))


def _of_another_manager(error: ApiException) -> bool:
    """Whether a conflict is about a field that another manager has set; all else was a race."""
    try:
        causes = json.loads(error.body or "")["details"]["causes"]
        return any(cause["reason"] == "FieldManagerConflict" for cause in causes)
    except (ValueError, KeyError, TypeError):
        return False


def read(cluster: Cluster, manifest: Mapping[str, Any]) -> Manifest | None:
    """The object that a manifest names (apiVersion, kind, name, namespace); None when there is none."""
    path = _path(cluster, manifest)
    with api_errors(f"read {_named(manifest)}"):
        try:
            found: Manifest = patiently(lambda: cluster.call("GET", path))
        except ApiException as error:
            if status_of(error) == 404:
                return None
            raise
    return found


def drifted(cluster: Cluster, manifest: Mapping[str, Any]) -> bool:
    """Whether somebody changed what the manifest says, by the API server's own account. Stores nothing.

    Raises ClusterApiError.
    """
    try:
        there, wanted = read(cluster, manifest), apply(cluster, manifest, dry_run=True)
    except ConflictError:
        return True
    return there is None or _told_by_user(there) != _told_by_user(wanted)


def _told_by_user(found: Mapping[str, Any]) -> Manifest:
    left_out = ("managedFields", "resourceVersion", "generation")
    metadata = {key: value for key, value in found["metadata"].items() if key not in left_out}
    return {**{key: value for key, value in found.items() if key != "status"}, "metadata": metadata}


def wait_ready(
    cluster: Cluster,
    manifest: Mapping[str, Any],
    timeout_s: float = READY_S,
    between: Callable[[], None] | None = None,
    judged: Callable[[Cluster, Manifest], Look] = judge,
) -> Manifest:
    """The object when its kind counts as ready. `between` is called at each look and may raise to end the waiting.

    Raises ClusterError when it fails, is gone, or is not ready in time, with the cluster's own words.
    """
    deadline, pauses = time.monotonic() + timeout_s, iter(LOOKS_S)
    while True:
        found = read(cluster, manifest)
        if found is None:
            raise ClusterError(f"{_named(manifest)} is gone while dhctl waits for it", "was it deleted by somebody?")
        look = judged(cluster, found)
        if look.ready:
            return found
        if look.failed:
            raise ClusterError(f"{_named(manifest)} failed: {look.told}", look.next_step)
        if time.monotonic() >= deadline:
            told = f"{_named(manifest)} is not ready after {timeout_s:.0f} s"
            raise ClusterError(f"{told}: {look.told}" if look.told else told, look.next_step)
        if between:
            between()
        time.sleep(min(next(pauses, LOOKS_S[-1]), max(0.0, deadline - time.monotonic())))


def delete(
    cluster: Cluster,
    manifest: Mapping[str, Any],
    run_id: str,
    timeout_s: float = GONE_S,
    between: Callable[[], None] | None = None,
) -> None:
    """Deletes an object of the run and all that it owns, and waits until it is gone; silent when it is gone already.

    Raises ForeignObjectError where the object that has the name is not the run's, ClusterError naming the finalizers
    that hold it, ClusterApiError.
    """
    began, pauses, asked = time.monotonic(), iter(LOOKS_S), ""
    while True:
        there = read(cluster, manifest)
        if there is None:
            return
        waited_s = time.monotonic() - began
        uid = there["metadata"]["uid"]
        if uid != asked:  # also one that was made anew since
            _require_ours(there, run_id)
            if _ask_to_delete(cluster, manifest, uid):
                asked = uid
                continue
        limit_s = min(timeout_s, _patience_s(there))
        if waited_s >= limit_s:
            raise ClusterError(f"{_named(manifest)} is still there after {limit_s:.0f} s: {held_by(there)}")
        if between:
            between()
        time.sleep(next(pauses, LOOKS_S[-1]))


def _patience_s(found: Mapping[str, Any]) -> float:
    if foreign_finalizers(found):
        return HELD_S
    waits_for_pods = found["kind"] == "Pod" or FOREGROUND in (found["metadata"].get("finalizers") or ())
    return PODS_GONE_S if waits_for_pods else GONE_S


def foreign_finalizers(found: Mapping[str, Any]) -> list[str]:
    """Those that are not the cluster's own."""
    names = found["metadata"].get("finalizers") or ()
    return [name for name in names if "/" in name and not name.partition("/")[0].endswith(("kubernetes.io", "k8s.io"))]


def held_by(found: Mapping[str, Any]) -> str:
    """Why an object that is being deleted is still there, with a next step."""
    held = [name for name in found["metadata"].get("finalizers") or () if name != FOREGROUND]
    if held:
        names = ", ".join(held)
        return f"finalizer {names} holds it; ask the owner of that controller, or the cluster's operator"
    if FOREGROUND in (found["metadata"].get("finalizers") or ()):
        return "what it owns is not gone yet; look at what carries the run's label"
    node = found.get("spec", {}).get("nodeName")
    where = f" on node {node}" if node else ""
    return f"its end is not confirmed{where}; is the node alive?"


def _ask_to_delete(cluster: Cluster, manifest: Mapping[str, Any], uid: str) -> bool:
    """Whether it was taken. A conflict is no refusal: another has the name now, which the next look sees, or it was a
    race, and it is asked for again.
    """
    policy = "Foreground" if _owns_others(manifest) else "Background"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "preconditions": {"uid": uid}}
    path = _path(cluster, manifest)
    with api_errors(f"delete {_named(manifest)}"):
        try:
            patiently(lambda: cluster.call("DELETE", path, options))
        except ApiException as error:
            if status_of(error) not in (404, 409):
                raise
            return status_of(error) == 404
    return True


def _owns_others(manifest: Mapping[str, Any]) -> bool:
    """What it owns is to be gone before it is."""
    metadata = manifest["metadata"]
    is_run_object = manifest["kind"] == "ConfigMap" and metadata["name"] == metadata.get("labels", {}).get(RUN_LABEL)
    return is_run_object or manifest["kind"] in OWNERS


def _require_ours(found: Mapping[str, Any], run_id: str) -> None:
    owner = (found["metadata"].get("labels") or {}).get(RUN_LABEL, "")
    if not run_id or owner != run_id:
        told = f"of run {owner}" if owner else "of somebody else"
        raise ForeignObjectError(
            f"{_named(found)} is {told}, and stays as it is", "rename it, or use another namespace"
        )


def _path(cluster: Cluster, manifest: Mapping[str, Any]) -> str:
    kind = kind_of(cluster, manifest["apiVersion"], manifest["kind"])
    metadata = manifest["metadata"]
    return kind.path(metadata.get("namespace") or cluster.namespace, metadata["name"])


def _named(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"
