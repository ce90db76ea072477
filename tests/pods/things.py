"""What others have in the namespace of a run."""

from __future__ import annotations

from kubernetes import client

from testbeds.kubernetes.layout import IMAGE

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Foreign:
    """A pod, a secret and a claim without a mark; the claim has the name of nothing of dhctl's."""

    def __init__(self, core: client.CoreV1Api, namespace: str) -> None:
        self._core, self._namespace = core, namespace
        container = {"name": "main", "image": IMAGE, "command": ["sleep", "infinity"], "securityContext": RESTRICTED}
        pod = {
            "metadata": {"name": "others", "labels": {"app": "web", "dhctl/role": "worker"}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
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
