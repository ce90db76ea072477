"""The Pulumi program of the Kubernetes target."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pulumi

from dhctl.infra.kubernetes.mark import LEASE
from dhctl.infra.kubernetes.objects import BINDING, RunObjects
from dhctl.infra.kubernetes.pod_objects import CODE, Manifest
from dhctl.infra.record import RunRecord
from dhctl.stacks.kubernetes.resources import KubernetesObject, Place, TokenSecret


def declare(objects: RunObjects, record: RunRecord) -> dict[str, Any]:
    """Namespace, run object, all that it owns, the head last; outputs `namespace` and `address`, the head's.

    The lease is made before what it ends, and so goes after all of that.
    """
    place, now = Place.of(record), time.time()
    before: list[pulumi.Resource] = []
    if objects.own_namespace:
        before.append(KubernetesObject("namespace", place, objects.namespace_object()))
    run = KubernetesObject("run", place, objects.run_object(), _after(before))

    def owned(part: str) -> pulumi.Output[Manifest]:
        return run.uid.apply(lambda uid: objects.owned(uid, now)[part])

    def make(parts: Iterable[str], after: Sequence[pulumi.Resource]) -> list[pulumi.Resource]:
        """For a binding the API server looks at the role: whoever makes it must have the rights that are in there."""
        bindings = [part for part in parts if part.endswith(BINDING)]
        plain = [KubernetesObject(part, place, owned(part), _after(after)) for part in parts if part not in bindings]
        return [*plain, *(KubernetesObject(part, place, owned(part), _after(plain)) for part in bindings)]

    parts = [part for part in objects.owned("", now) if part != LEASE]
    first = [part for part in parts if part == CODE or part.startswith(f"{LEASE}-")]
    lease = KubernetesObject(LEASE, place, owned(LEASE), _after(make(first, [run])))
    made = make([part for part in parts if part not in first], [lease])
    made.append(TokenSecret("token", place, run.uid.apply(objects.token_object), _after([lease])))
    head = KubernetesObject("head", place, run.uid.apply(objects.ray), _after(made))
    return {"namespace": objects.namespace, "address": head.address}


def _after(resources: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(depends_on=list(resources))
