"""What in the cluster carries a run's mark, by discovery and raw listings: a test's own proof that nothing is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from testbeds.kubernetes.cluster import get

RUN_LABEL = "dhctl/run"


def leftovers(admin: client.ApiClient, selector: str = RUN_LABEL) -> list[str]:
    """All objects of all kinds but events that a label selector finds, as 'Kind namespace/name'."""
    found = []
    for path, kind in _kinds(admin):
        for item in _get(admin, path, selector).get("items", []):
            meta = item["metadata"]
            found.append(f"{kind} {meta.get('namespace', '')}/{meta['name']}".replace(" /", " "))
    return sorted(set(found))


def _kinds(admin: client.ApiClient) -> Iterator[tuple[str, str]]:
    """Path of the listing over all namespaces, and the kind, of all that can be listed in any served version."""
    groups = ["/api/v1"]
    groups += [f"/apis/{group['preferredVersion']['groupVersion']}" for group in _get(admin, "/apis")["groups"]]
    for group in groups:
        try:
            resources = _get(admin, group)["resources"]
        except ApiException as trouble:
            if trouble.status in {404, 503}:  # a group whose own server is away
                continue
            raise
        for resource in resources:
            if "/" not in resource["name"] and "list" in resource["verbs"] and resource["kind"] != "Event":
                yield f"{group}/{resource['name']}", resource["kind"]


def _get(admin: client.ApiClient, path: str, selector: str = "") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(get(admin, path, [("labelSelector", selector)] if selector else []))
    return body
