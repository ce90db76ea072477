"""Small real stand-ins for the pods of a Kubernetes run: its head's folder, its settings, the API's pods."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dhctl.infra.kubernetes.node.pods import LAUNCH_NOTE, Pod, PodApiError
from dhctl.infra.kubernetes.node.settings import PodSettings
from dhctl.infra.node.layout import NodeFolder

RUN_ID = "dh-aaaabbbbcc"
HEAD_NAME = f"{RUN_ID}-head"
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": RUN_ID, "uid": "uid-of-run", "blockOwnerDeletion": True}
TEMPLATE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"labels": {"team": "pathology"}},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "ray",
                "image": "registry.lab/ray:2.60.0",
                "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "RAY_AUTH_MODE", "value": "disabled"}],
            }
        ],
    },
}


def make_pod_settings(**changes: Any) -> PodSettings:
    """Settings of a head whose lease is far away."""
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "name": "trial",
        "namespace": "lab",
        "node_id": HEAD_NAME,
        "expires_at": 4_000_000_000,
        "worker_pod": TEMPLATE,
        "max_workers": 2,
    }
    return PodSettings(**{**values, **changes})


def make_pod_folder(path: Path) -> NodeFolder:
    """The folder of a head's pod."""
    folder = NodeFolder(path)
    folder.make()
    return folder


class FakePods:
    """Pods in a dictionary. Faults are set by the test: `down` fails all calls, `refuse` the next creations."""

    def __init__(self) -> None:
        self.by_name: dict[str, Pod] = {}
        self.bodies: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.selectors: list[str] = []
        self.owned_by: list[dict[str, Any]] = [OWNER]
        self.down: PodApiError | None = None
        self.refuse: PodApiError | None = None
        self.keep: PodApiError | None = None
        self.last_words: dict[str, Any] = {}
        self.node_is_made, self.promises = False, 0
        self.hold = threading.Event()
        self.hold.set()

    def add(self, name: str, phase: str = "Running", **changes: Any) -> Pod:
        self.by_name[name] = Pod(f"uid-of-{name}", name, phase, time.time(), **changes)
        return self.by_name[name]

    def change(self, name: str, **changes: Any) -> None:
        self.by_name[name] = replace(self.by_name[name], **changes)

    def pods(self, selector: str) -> list[Pod]:
        self.selectors.append(selector)
        if self.down:
            raise self.down
        return list(self.by_name.values())

    def owners(self, name: str) -> list[dict[str, Any]]:
        assert name == HEAD_NAME
        if self.down:
            raise self.down
        return self.owned_by

    def create(self, body: Mapping[str, Any]) -> Pod:
        self.bodies.append(dict(body))
        assert self.hold.wait(5)
        if self.refuse or self.down:
            raise self.refuse or self.down or AssertionError
        metadata = body["metadata"]
        return self.add(metadata["name"], phase="Pending", launch=metadata["annotations"][LAUNCH_NOTE])

    def delete(self, pod: Pod) -> Pod | None:
        if self.keep or self.down:
            raise self.keep or self.down or AssertionError
        self.deleted.append(pod.uid)
        there = self.by_name.pop(pod.name, None)
        return replace(there, deletion=True, **self.last_words) if there else None

    def promised(self, pod: Pod) -> bool:
        assert pod.unschedulable
        self.promises += 1
        return self.node_is_made
