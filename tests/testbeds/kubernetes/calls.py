"""Who calls the API server how often, by its own count: a flow schema for each kind of call puts a name to it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from testbeds.errors import TestbedError
from testbeds.kubernetes.cluster import get

KINDS: Mapping[str, tuple[str, str]] = {
    "create": ("create", "pods"),
    "delete": ("delete", "pods"),
    "list": ("list", "pods"),
    "other": ("*", "*"),
}
"""Verb and resource of each kind of call; the first that fits counts."""
BEFORE_OTHERS = 8000
"""Precedence of the first: just before the API server's own schema for service accounts, whose level they share."""
LEVEL = "workload-low"
KNOWN_LIMIT_S = 30
_COUNTED = re.compile(
    r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="([^"]+)",[^}]*\} (\S+)$', re.MULTILINE
)


@contextmanager
def counted_calls(admin: client.ApiClient, namespace: str) -> Iterator[Callable[[], Counter[str]]]:
    """Yields what tells the calls, by KINDS, of the service accounts of this namespace since the block began.

    Nobody else's count, whatever they do in that namespace; calls of the namespace's users do not either.
    Raises TestbedError when the API server takes no notice of the schemas.
    """
    flows = client.FlowcontrolApiserverV1Api(admin)
    names = {kind: f"{namespace}-{kind}" for kind in KINDS}
    made = []
    try:
        for place, (kind, name) in enumerate(names.items()):
            flows.create_flow_schema(_schema(name, namespace, *KINDS[kind], BEFORE_OTHERS + place))
            made.append(name)
        _wait_known(flows, made)
        yield lambda: _counted(admin, names)
    finally:
        for name in made:
            flows.delete_flow_schema(name)


def _schema(name: str, namespace: str, verb: str, resource: str, precedence: int) -> dict[str, Any]:
    accounts = {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "*"}}
    calls = {"verbs": [verb], "apiGroups": ["*"], "resources": [resource], "namespaces": ["*"], "clusterScope": True}
    return {
        "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": precedence,
            "priorityLevelConfiguration": {"name": LEVEL},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [accounts], "resourceRules": [calls]}],
        },
    }


def _wait_known(flows: client.FlowcontrolApiserverV1Api, names: list[str]) -> None:
    """The API server's own controller writes into the status of those that it follows."""
    end = time.monotonic() + KNOWN_LIMIT_S
    while not all(flows.read_flow_schema(name).status.conditions for name in names):
        if time.monotonic() > end:
            raise TestbedError(f"the API server takes no notice of flow schemas after {KNOWN_LIMIT_S} s")
        time.sleep(0.1)


def _counted(admin: client.ApiClient, names: Mapping[str, str]) -> Counter[str]:
    counts = {name: int(float(count)) for name, count in _COUNTED.findall(get(admin, "/metrics").decode())}
    return Counter({kind: counts.get(name, 0) for kind, name in names.items()})
