"""Simulated nodes, for runs of more workers than this machine holds: kwok plays their kubelets, and the rest is real.

kwok is built by itself and on demand, so that only those who want it pay for it. Its nodes are tainted: nothing gets
onto them but pods that tolerate it. What runs there is marked as running, and no process belongs to it.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from dhctl.infra.engine_build import Build
from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import Layout
from testbeds.kubernetes.programs import build_into, build_with_go

KWOK = "0.8.0"
MODULE = "sigs.k8s.io/kwok"
STAGES = ("node/fast/node-initialize", "pod/fast/pod-ready", "pod/fast/pod-delete")
"""What happens to nodes and pods, of those that kwok's module brings along."""
SERVICE = "kwok"
ENV = {"KUBE_FEATURE_WatchListClient": "false"}
"""Lists, then watches: Debian's etcd cannot serve the lists that come as a stream."""
POD_ADDRESSES = "10.245.0.0/16"
"""Of simulated pods; nothing answers there."""
MANAGED = {"kwok.x-k8s.io/node": "fake"}
"""Annotation of a simulated node."""
TAINT = {"key": "dhctl-testbed/simulated", "value": "true", "effect": "NoSchedule"}
TOLERATION = {"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]}
"""What a pod needs that may go there."""
READY_LIMIT_S = 60


def kwok(cache: Path) -> Path:
    """The folder of the program and its stages, there or not."""
    digest = hashlib.sha256(repr((KWOK, STAGES)).encode()).hexdigest()
    return cache / f"kwok-{digest[:12]}"


def build(cache: Path, say: Callable[[str], None]) -> bool:
    """Builds it, unless it is there; whether it did. Raises TestbedError with the log's end."""
    return build_into(kwok(cache), KWOK, "kwok", "3 minutes on two cores", _build, say)


def _build(work: Build) -> None:
    bin_folder, module = work.root / "bin", work.folder / "module"
    bin_folder.mkdir(parents=True)
    module.mkdir()
    step, modules = build_with_go(work, module)
    step("mod", "init", "testbed.local/kwok")
    step("mod", "edit", f"-require={MODULE}@v{KWOK}")
    step("build", "-trimpath", "-ldflags", "-s -w", "-o", str(bin_folder / "kwok"), f"{MODULE}/cmd/kwok")
    for stage in STAGES:
        shutil.copy(modules / f"{MODULE}@v{KWOK}" / "kustomize" / "stage" / f"{stage}.yaml", bin_folder)


def command(layout: Layout) -> tuple[str, ...]:
    """What starts it; it manages no node but those with the annotation."""
    place = kwok(layout.cache)
    [selector] = [f"{key}={value}" for key, value in MANAGED.items()]
    configured = [f"--config={place / Path(name).name}.yaml" for name in STAGES]
    own = (f"--kubeconfig={layout.admin_kubeconfig}", f"--cidr={POD_ADDRESSES}", "--node-port=0")
    which = (f"--manage-nodes-with-annotation-selector={selector}", "--node-lease-duration-seconds=20")
    return (str(place / "kwok"), *own, *which, *configured)


class SimulatedNodes:
    """A number of them, of one size. No pod has room there before `open`: until then all go to real nodes."""

    def __init__(self, core: client.CoreV1Api, names: list[str]) -> None:
        self._core, self._names = core, names

    def open(self, pods: int) -> None:
        """Room for so many pods on each."""
        for name in self._names:
            room = {"pods": str(pods)}
            self._core.patch_node_status(name, {"status": {"allocatable": room, "capacity": room}})


@contextmanager
def simulated_nodes(
    core: client.CoreV1Api, prefix: str, count: int, room: Mapping[str, str]
) -> Iterator[SimulatedNodes]:
    """Ready ones, with this much `cpu` and `memory` each; gone after the block. Raises TestbedError."""
    names = [f"{prefix}-{number}" for number in range(count)]
    try:
        for name in names:
            core.create_node(_node(name, room))
        _wait_ready(core, names)
        yield SimulatedNodes(core, names)
    finally:
        there = {node.metadata.name for node in core.list_node().items}
        for name in there.intersection(names):
            core.delete_node(name)


def _node(name: str, room: Mapping[str, str]) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "simulated"}
    offered = {**room, "pods": "0"}
    return {
        "metadata": {"name": name, "annotations": dict(MANAGED), "labels": labels},
        "spec": {"taints": [dict(TAINT)]},
        "status": {"allocatable": offered, "capacity": offered},
    }


def _wait_ready(core: client.CoreV1Api, names: list[str]) -> None:
    end = time.monotonic() + READY_LIMIT_S
    while True:
        nodes = [node for node in core.list_node().items if node.metadata.name in names]
        # The node controller's taint of one that was not ready goes a moment after it is.
        if sum(_ready(node) and len(node.spec.taints) == 1 for node in nodes) == len(names):
            return
        if time.monotonic() > end:
            raise TestbedError(f"not all simulated nodes are Ready after {READY_LIMIT_S} s; look into kwok's log")
        time.sleep(0.2)


def _ready(node: client.V1Node) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or ())
