"""States that a test puts the cluster into, and that end with the `with` block; and blows that it deals."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kubernetes import client

from dhctl.infra.processes import wait_until
from testbeds.errors import TestbedError
from testbeds.kubernetes import cluster, kernel, services
from testbeds.kubernetes.layout import NODES, Layout, Node
from testbeds.kubernetes.testbed import Testbed
from testbeds.services import Service
from testbeds.sharing import held, run_verb

QUOTA_SEEN_S = 30
NODE_SEEN_S = 90


@contextmanager
def link_cut(node: Node) -> Iterator[None]:
    """The node's network cable is out. Its pods go on; nobody hears of them."""
    kernel.set_link(node, up=False)
    try:
        yield
    finally:
        kernel.set_link(node, up=True)


@contextmanager
def cordoned(admin: client.ApiClient, node: Node) -> Iterator[None]:
    """No new pod comes to the node; what is there stays."""
    core = client.CoreV1Api(admin)
    core.patch_node(node.name, {"spec": {"unschedulable": True}})
    try:
        yield
    finally:
        core.patch_node(node.name, {"spec": {"unschedulable": None}})


@contextmanager
def kubelet_killed(layout: Layout, node: Node) -> Iterator[None]:
    """The node's agent is gone, its pods go on. A new one finds them."""
    testbed = _testbed(layout)
    service = services.kubelet(layout, node, testbed.holder(node))
    with _killed(testbed, service):
        yield


@contextmanager
def api_server_down(layout: Layout) -> Iterator[None]:
    """Nobody answers at the API server's address; afterwards one with the same memory does."""
    testbed = _testbed(layout)
    with _killed(testbed, services.api_server(layout)):
        yield
    with cluster.connect(layout.admin_kubeconfig) as admin:
        cluster.wait_api(admin)


def restart_api_server(layout: Layout) -> None:
    """Kills it and starts it again: watches and port forwards break."""
    with api_server_down(layout):
        pass


def delete_pod(admin: client.ApiClient, namespace: str, name: str) -> None:
    """The pod is gone at once, without a goodbye; the node still ends its processes."""
    client.CoreV1Api(admin).delete_namespaced_pod(name, namespace, grace_period_seconds=0)


@contextmanager
def quota(admin: client.ApiClient, namespace: str, **limits: str) -> Iterator[None]:
    """Limits of the namespace's ResourceQuota `quota`, by their names with `_` for `.`; those not named stay."""
    core = client.CoreV1Api(admin)
    before: Mapping[str, str] = dict(core.read_namespaced_resource_quota("quota", namespace).spec.hard)

    def put(hard: Mapping[str, str | None]) -> None:
        core.patch_namespaced_resource_quota("quota", namespace, {"spec": {"hard": dict(hard)}})
        wanted = {name: value for name, value in hard.items() if value is not None}

        def seen() -> bool:
            status = core.read_namespaced_resource_quota("quota", namespace).status
            return all((status.hard or {}).get(name) == value for name, value in wanted.items())

        if not wait_until(seen, QUOTA_SEEN_S, 0.1):
            raise TestbedError(f"the quota of {namespace} did not change within {QUOTA_SEEN_S} s")

    changed = {name.replace("_", "."): value for name, value in limits.items()}
    put(changed)
    try:
        yield
    finally:
        put({name: before.get(name) for name in changed})


def node_of(admin: client.ApiClient, namespace: str, pod: str) -> Node:
    """Where a pod was put."""
    name = client.CoreV1Api(admin).read_namespaced_pod(pod, namespace).spec.node_name
    return next(node for node in NODES if node.name == name)


def wait_node(admin: client.ApiClient, node: Node, ready: bool, limit_s: float = NODE_SEEN_S) -> float:
    """Until the node is Ready, or until it is not; the seconds that took. Raises TestbedError."""
    started = time.monotonic()
    if not wait_until(lambda: cluster.node_ready(admin, node) == ready, limit_s, 0.2):
        raise TestbedError(f"{node.name} is still {'not ' if ready else ''}Ready after {limit_s:.0f} s")
    return time.monotonic() - started


def _testbed(layout: Layout) -> Testbed:
    def say(_: str) -> None:
        """Nobody reads it."""

    return Testbed(layout, say)


@contextmanager
def _killed(testbed: Testbed, service: Service) -> Iterator[None]:
    mark = testbed.services.marks()[service.name]
    with held(testbed.layout.held_down(service.name)):
        mark.signal(signal.SIGKILL)
        if not wait_until(lambda: not mark.alive(), 10):
            raise TestbedError(f"{service.name} outlived SIGKILL")
        try:
            yield
        finally:
            # By a process of its own: what it starts is then no child of this one, and may outlive it.
            run_verb("kubernetes", testbed.layout.env, "start", service.name)
