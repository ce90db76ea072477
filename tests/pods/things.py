"""What others have in the namespace of a run."""

from __future__ import annotations

import json
from typing import Any

from kubernetes import client

from dhctl.infra.kubernetes.troubles import EVENTS
from dhctl.infra.record import RunRecord
from testbeds.kubernetes.layout import IMAGE
from testbeds.kubernetes.pods import execute
from testbeds.kubernetes.project import PYTHON

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

STAYS = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute"}
    for state in ("unreachable", "not-ready")
]
"""The cluster itself takes the pod off no node that a test takes away."""

EATS = """import os, time
for _ in range(64):
    if os.fork() == 0:
        eaten = b"x" * 2**24
        time.sleep(30)
        os._exit(0)
"""
"""Python that needs more memory than the pod has, in small processes: the kernel's choice is one of Ray's."""


def journal(admin: client.ApiClient, record: RunRecord, namespace: str) -> list[dict[str, Any]]:
    """What the head wrote down of its workers."""
    told = execute(admin, namespace, f"{record.run_id}-head", ["cat", EVENTS])
    return [json.loads(line) for line in told.splitlines()]


def eat_memory(admin: client.ApiClient, namespace: str, pod: str) -> None:
    """Until the pod is killed for it."""
    execute(admin, namespace, pod, [PYTHON, "-c", EATS], limit_s=20)


def evict(admin: client.ApiClient, namespace: str, pod: str) -> None:
    """As `kubectl drain --grace-period=8` does."""
    body = {"metadata": {"name": pod, "namespace": namespace}, "deleteOptions": {"gracePeriodSeconds": 8}}
    client.CoreV1Api(admin).create_namespaced_pod_eviction(pod, namespace, body)


class Foreign:
    """A pod, a secret and a claim without a mark; the claim has the name of nothing of dhctl's."""

    def __init__(self, core: client.CoreV1Api, namespace: str) -> None:
        self._core, self._namespace = core, namespace
        container = {"name": "main", "image": IMAGE, "command": ["sleep", "infinity"], "securityContext": RESTRICTED}
        pod = {
            "metadata": {"name": "others", "labels": {"app": "web", "dhctl/role": "worker"}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "tolerations": STAYS},
        }
        core.create_namespaced_pod(namespace, pod)
        core.create_namespaced_secret(namespace, {"metadata": {"name": "others"}, "stringData": {"key": "theirs"}})
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "",
        }
        core.create_namespaced_persistent_volume_claim(namespace, {"metadata": {"name": "others"}, "spec": claim})
        self._uids = self._seen()

    def _seen(self) -> list[str]:
        core, place = self._core, ("others", self._namespace)
        found = (
            core.read_namespaced_pod(*place),
            core.read_namespaced_secret(*place),
            core.read_namespaced_persistent_volume_claim(*place),
        )
        assert all(one.metadata.deletion_timestamp is None for one in found)
        return [one.metadata.uid for one in found]

    def assert_untouched(self) -> None:
        """All are there, and are the same."""
        assert self._seen() == self._uids
