"""Workers that are lost on a cluster: each is named with the cluster's own words and replaced, and nothing is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kubernetes import client
from pods.runs import PodRuns
from pods.test_failures import KEPT, joined, receipt_of, worker_names
from pods.things import Foreign, eat_memory, evict, journal

from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from dhctl.stacks.targets import target_for
from testbeds.kubernetes.conditions import cordoned, link_cut, node_of, quota, wait_node
from testbeds.kubernetes.fault_proxy import FaultProxy, Refusal, api_fault
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.layout import NODES

REPLACED_S = 240
RACE = Refusal(409, "Conflict")
"""What a write that lost a race is told; no other manager is named."""


@pytest.fixture
def counted(kubernetes_cluster: KubernetesCluster, namespace: str) -> str:
    """The namespace, with a ResourceQuota that is wide enough."""
    core = client.CoreV1Api(kubernetes_cluster.admin())
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "quota"}, "spec": {"hard": {"pods": "9"}}})
    assert wait_until(lambda: bool(core.read_namespaced_resource_quota("quota", namespace).status.hard), 30, 0.2)
    return namespace


def running(cluster: KubernetesCluster, record: RunRecord) -> set[str]:
    """Workers whose container runs."""
    selector = f"dhctl/run={record.run_id},dhctl/role=worker"
    pods = client.CoreV1Api(cluster.admin()).list_pod_for_all_namespaces(label_selector=selector).items
    return {pod.metadata.name for pod in pods if pod.status.phase == "Running"}


def await_replaced(cluster: KubernetesCluster, record: RunRecord, lost: str) -> str:
    """The worker that came for a lost one, when Ray has it."""

    def there() -> bool:
        return running(cluster, record) - {lost} == worker_names(cluster, record) != set() and joined(record, 1)

    assert wait_until(there, REPLACED_S, every_s=2), f"nobody took the place of {lost}"
    (name,) = worker_names(cluster, record)
    return name


@contextmanager
def through(dhctl: PodRuns, proxy: FaultProxy) -> Iterator[None]:
    """The command meets the proxy's faults. Afterwards not: the proxy goes before what a failed test left."""
    before = dhctl.env["KUBECONFIG"]
    dhctl.env["KUBECONFIG"] = str(proxy.kubeconfig)
    try:
        yield
    finally:
        dhctl.env["KUBECONFIG"] = before


def told(record: RunRecord, words: str) -> bool:
    """Whether dhctl says so of the run."""
    return any(words in sentence for sentence in target_for(record.spec.target).troubles(record))


@pytest.mark.thorough
def test_lost_workers_are_named_and_replaced_as_quota_and_races_allow(
    dhctl: PodRuns,
    counted: str,
    kubernetes_cluster: KubernetesCluster,
    kubernetes_fault_proxy: FaultProxy,
    foreign: Foreign,
) -> None:
    admin = kubernetes_cluster.admin()
    writes = kubernetes_fault_proxy.expect(api_fault("PATCH", r"/", RACE, times=3))
    with through(dhctl, kubernetes_fault_proxy):
        up = dhctl("up", dhctl.spec("pair", workers=KEPT))
    assert up.returncode == 0, up.stdout + up.stderr
    assert writes.hits == 3
    record = dhctl.record()

    (first,) = worker_names(kubernetes_cluster, record)
    with quota(admin, counted, pods="2"):
        evict(admin, counted, first)

        def refusals() -> list[float]:
            failed = [event for event in journal(admin, record, counted) if event["kind"] == "failed"]
            return [event["again_in_s"] for event in failed if "exceeded quota: quota" in event["reason"]]

        assert wait_until(lambda: len(refusals()) >= 2, 90, every_s=1), "it is not tried again"
        assert refusals()[1] > refusals()[0], "each pause is longer"
        assert told(record, f"worker {first} was taken away: EvictionByEvictionAPI: ")
        assert told(record, "requested: pods=1, used: pods=2, limited: pods=2")
    second = await_replaced(kubernetes_cluster, record, first)

    eat_memory(admin, counted, second)
    await_replaced(kubernetes_cluster, record, second)
    assert told(record, f"worker {second} ended: OOMKilled: it used more memory than its limit")

    deletions = kubernetes_fault_proxy.expect(api_fault("DELETE", r"/", RACE, times=4))
    with through(dhctl, kubernetes_fault_proxy):
        down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert deletions.hits == 4
    assert receipt_of(record)["clean"] is True


@pytest.mark.slow
def test_a_worker_whose_node_is_lost_is_replaced_on_another_and_named_while_its_end_is_unknown(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    admin = kubernetes_cluster.admin()
    up = dhctl("up", dhctl.spec("pair", workers=KEPT))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    home = node_of(admin, dhctl.namespace, f"{record.run_id}-head")
    (other,) = [node for node in NODES if node != home]
    (first,) = worker_names(kubernetes_cluster, record)
    if node_of(admin, dhctl.namespace, first) == home:
        with cordoned(admin, home):
            evict(admin, dhctl.namespace, first)
            first = await_replaced(kubernetes_cluster, record, first)
    with link_cut(other):
        wait_node(admin, other, ready=False)
        second = await_replaced(kubernetes_cluster, record, first)
        assert node_of(admin, dhctl.namespace, second) == home
        late = f"pod {first} does not end: its end is not confirmed on node {other.name}"
        assert wait_until(lambda: told(record, late), 60, every_s=2)
        started = time.monotonic()
        down = dhctl("down", record.run_id, timeout_s=400)
        assert down.returncode == 5, down.stdout + down.stderr
        assert time.monotonic() - started < 180, "it waits for what cannot come"
        assert f"its end is not confirmed on node {other.name}" in down.stdout + down.stderr
        assert f"kubectl delete pods {first}" in down.stdout + down.stderr
    wait_node(admin, other, ready=True)
    again = dhctl("down", record.run_id)
    assert again.returncode == 0, again.stdout + again.stderr
    assert receipt_of(record)["clean"] is True
