"""What a tenant must be allowed to do in a namespace, as a table: admission asks for it, the docs show it as a Role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_ALL = ("get", "list", "create", "patch", "delete")


@dataclass(frozen=True)
class Right:
    """Verbs on one resource; a subresource is written `pods/log`. `why` ends the sentence when it is missing."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str


RIGHTS = (
    Right("", "configmaps", _ALL, "the run's own object and dhctl's code are configmaps"),
    Right("", "configmaps/finalizers", ("update",), "it owns all else"),
    Right("", "secrets", _ALL, "Ray's token is a secret"),
    Right("", "pods", _ALL, "head and workers are pods"),
    Right("", "pods/log", ("get",), "logs are copied before the pods go"),
    Right("", "pods/portforward", ("get", "create"), "Ray is reached through the API server"),
    Right("", "pods/exec", ("get", "create"), "Ray's logs are read inside the head"),
    Right("", "events", ("list",), "what the scheduler says of a pod is an event"),
    Right("", "services", _ALL, "the head has a service"),
    Right("", "resourcequotas", ("list",), "a run is refused before it hits a quota"),
    Right("", "limitranges", ("list",), "a run is refused before it hits a limit"),
    Right("networking.k8s.io", "networkpolicies", _ALL, "only the run's own pods may reach Ray"),
    Right("batch", "cronjobs", _ALL, "the end of the lease is a cron job"),
    Right("batch", "jobs", ("get", "list", "delete"), "the cron job makes jobs"),
)
"""Always needed."""

ACCOUNT_RIGHTS = (
    Right("", "serviceaccounts", _ALL, "the head and the lease have service accounts"),
    Right("rbac.authorization.k8s.io", "roles", _ALL, "their rights are roles"),
    Right("rbac.authorization.k8s.io", "rolebindings", _ALL, "their rights are roles"),
)
"""Needed unless the spec names a service account."""

KUBERAY_RIGHTS = (Right("ray.io", "rayclusters", _ALL, "KubeRay makes Ray's pods from a RayCluster"),)
"""Needed where KubeRay makes the pods."""

VOLUME_RIGHTS = (Right("", "persistentvolumeclaims", _ALL, "the data volume is a claim"),)
"""Needed with a data volume."""


def head_rules(run_id: str) -> tuple[dict[str, Any], ...]:
    """What the head's service account may do: make and end workers, and read why one is not scheduled.

    Some clusters (OwnerReferencesPermissionEnforcement) want the right to the owner's finalizers of who makes a pod
    that blocks its owner's deletion.
    """
    owner = {"apiGroups": [""], "resources": ["configmaps/finalizers"], "verbs": ["update"], "resourceNames": [run_id]}
    return (
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        owner,
    )


def lease_rules(run_id: str) -> tuple[dict[str, Any], ...]:
    """What the lease's service account may do: delete this run's object, and nothing else."""
    return ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "delete"], "resourceNames": [run_id]},)


def tenant_rules() -> Iterator[dict[str, Any]]:
    """The rules of a Role with which a tenant can do all of it."""
    for right in (*RIGHTS, *ACCOUNT_RIGHTS, *VOLUME_RIGHTS, *KUBERAY_RIGHTS):
        yield {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
