"""What goes wrong on a cluster: each ends in a sentence, and in nothing that is left or foreign that is touched."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest
from kubernetes import client
from pods.runs import PodRuns, workers
from pods.things import Foreign

from dhctl.infra.errors import ClusterError
from dhctl.infra.processes import carries_mark, wait_until
from dhctl.infra.record import RunRecord
from e2e.driver import has
from testbeds.kubernetes.conditions import delete_pod, restart_api_server
from testbeds.kubernetes.fault_proxy import FaultProxy, Refusal, api_fault
from testbeds.kubernetes.fixtures import KubernetesCluster

KEPT = {"min": 1, "max": 2, "memory": "512MiB", "idle_timeout": "8s"}
JOIN_S = 120


def worker_names(cluster: KubernetesCluster, record: RunRecord) -> set[str]:
    """Living workers' pods."""
    core = client.CoreV1Api(cluster.admin())
    selector = f"dhctl/run={record.run_id},dhctl/role=worker"
    listed = core.list_pod_for_all_namespaces(label_selector=selector).items
    return {pod.metadata.name for pod in listed if pod.metadata.deletion_timestamp is None}


def joined(record: RunRecord, wanted: int) -> bool:
    """Whether Ray has this many workers; a Ray that does not answer now has none."""
    try:
        return workers(record) == wanted
    except ClusterError:
        return False


def marked_processes(run_id: str) -> list[int]:
    """Processes of this machine that carry the run's mark."""
    return [pid for pid in psutil.pids() if carries_mark(pid, run_id)]


def receipt_of(record: RunRecord) -> dict[str, object]:
    """As it was stored."""
    body: dict[str, object] = json.loads(record.receipt_path.read_text())
    return body


def test_a_deleted_worker_is_replaced_and_apis_in_trouble_do_not_keep_a_run_alive(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, kubernetes_fault_proxy: FaultProxy, foreign: Foreign
) -> None:
    up = dhctl("up", dhctl.spec("pair", workers=KEPT))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    (first,) = worker_names(kubernetes_cluster, record)
    delete_pod(kubernetes_cluster.admin(), dhctl.namespace, first)
    assert wait_until(lambda: len(worker_names(kubernetes_cluster, record) - {first}) == 1, JOIN_S, every_s=1)
    assert wait_until(lambda: joined(record, 1), JOIN_S, every_s=2), "no worker took its place"

    restart_api_server(kubernetes_cluster.layout)
    assert wait_until(lambda: joined(record, 1), JOIN_S, every_s=2), "the worker outlives the API server"

    dhctl.env["KUBECONFIG"] = str(kubernetes_fault_proxy.kubeconfig)
    slow = kubernetes_fault_proxy.expect(api_fault("GET", r"/pods", Refusal(429, "TooManyRequests", 1), times=3))
    broken = kubernetes_fault_proxy.expect(api_fault("DELETE", r"/", Refusal(500, "InternalError"), times=3))
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert (slow.hits, broken.hits) == (3, 3)


def test_client_and_engine_are_killed_while_the_head_starts(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    up = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(has("stack.up", "intent"))
    core = client.CoreV1Api(kubernetes_cluster.admin())
    assert wait_until(lambda: bool(core.list_namespaced_pod(dhctl.namespace, label_selector="dhctl/run").items), 60)
    engine = [e.detail["process"]["pid"] for e in record.ledger.entries() if e.act == "engine.process"]
    os.kill(up.pid, signal.SIGKILL)
    for pid in engine:
        os.kill(pid, signal.SIGKILL)
    up.wait(10)
    assert marked_processes(record.run_id), "the engine's plugin outlives it"
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert marked_processes(record.run_id) == []
    assert receipt_of(record)["clean"] is True


@pytest.mark.thorough
def test_a_finalizer_that_holds_is_named_at_exit_5(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    record, core = dhctl.record(), client.CoreV1Api(kubernetes_cluster.admin())
    held = {"metadata": {"finalizers": ["example.org/held"]}}
    core.patch_namespaced_config_map(f"{record.run_id}-code", dhctl.namespace, held)
    try:
        down = dhctl("down", record.run_id, timeout_s=900)
        assert down.returncode == 5, down.stdout + down.stderr
        assert "example.org/held" in down.stdout + down.stderr
    finally:
        core.patch_namespaced_config_map(f"{record.run_id}-code", dhctl.namespace, {"metadata": {"finalizers": None}})
    again = dhctl("down", record.run_id)
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.thorough
def test_workers_without_a_place_are_told_with_the_schedulers_reason(dhctl: PodRuns) -> None:
    up = dhctl("up", dhctl.spec("pair", workers={**KEPT, "cpus": 64}))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "Insufficient cpu" in up.stderr
    assert "1 workers are always kept, but only 0 joined in time" in up.stderr
    assert receipt_of(dhctl.record())["clean"] is True


def test_an_image_that_is_not_there_is_told(dhctl: PodRuns) -> None:
    image = "localhost/no-such-image:1"
    up = dhctl.start("up", dhctl.spec("pair", kubernetes={"image": image}))
    record = dhctl.until(has("head.ray", "intent"))
    time.sleep(5)
    up.send_signal(signal.SIGINT)
    told, _ = up.communicate(timeout=120)
    assert up.returncode == 130, told
    assert receipt_of(record)["clean"] is True


@pytest.mark.parametrize("strict", [True])
def test_strict_network_ends_a_run_where_policies_are_not_enforced(dhctl: PodRuns, strict: bool) -> None:
    up = dhctl("up", dhctl.spec("pair", kubernetes={"strict_network": strict}))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "this cluster does not enforce NetworkPolicy" in up.stderr
    assert receipt_of(dhctl.record())["clean"] is True


def test_a_quota_that_is_too_small_refuses_before_anything_is_made(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster
) -> None:
    core = client.CoreV1Api(kubernetes_cluster.admin())
    body = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    core.create_namespaced_resource_quota(dhctl.namespace, body)
    assert wait_until(
        lambda: bool(core.read_namespaced_resource_quota("small", dhctl.namespace).status.hard), 30, every_s=0.2
    )
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "pods" in up.stderr
    assert dhctl.records() == []


def test_a_missing_right_refuses_before_anything_is_made(dhctl: PodRuns, kubernetes_cluster: KubernetesCluster) -> None:
    from dhctl.infra.kubernetes.rights import tenant_rules

    rules = [rule for rule in tenant_rules() if rule["resources"] != ["cronjobs"]]
    kubernetes_cluster.give_tenant(dhctl.namespace, rules)
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "cronjobs" in up.stderr
    assert dhctl.records() == []
