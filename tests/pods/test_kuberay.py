"""A run whose pods KubeRay's real operator makes: only where somebody names one, as no registry here has it."""

from __future__ import annotations

import json

import pytest
from kubernetes import client
from pods.runs import PodRuns, workers
from pods.things import Foreign

from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.kuberay import OPERATOR_ENV, Operator
from testbeds.object_store import ObjectStore

pytestmark = pytest.mark.skipif(Operator.given() is None, reason=f"{OPERATOR_ENV} names no operator of KubeRay")
GONE_S = 90


def of_kuberay(cluster: KubernetesCluster, namespace: str, record: RunRecord) -> list[str]:
    """What the operator made for the run: by its own label, which dhctl's receipt does not go by."""
    core, rbac = client.CoreV1Api(cluster.admin()), client.RbacAuthorizationV1Api(cluster.admin())
    lists = (core.list_namespaced_pod, core.list_namespaced_service, core.list_namespaced_service_account)
    selector = f"ray.io/cluster={record.run_id}"
    found = [item for each in lists for item in each(namespace, label_selector=selector).items]
    found += rbac.list_namespaced_role(namespace, label_selector=selector).items
    return [item.metadata.name for item in found]


def test_a_ray_cluster_trains_and_nothing_of_it_is_left(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, kubernetes_s3: ObjectStore, foreign: Foreign
) -> None:
    up = dhctl("up", dhctl.spec("pair", kubernetes={"ray": "auto"}))
    assert up.returncode == 0, up.stdout + up.stderr
    assert "HeadPodReady" in up.stdout, "conditions are shown"
    record = dhctl.record()
    assert record.spec.kubernetes.ray == "kuberay", "what was taken is recorded"
    assert of_kuberay(kubernetes_cluster, dhctl.namespace, record)
    trained = dhctl("train", "pair", "--json", timeout_s=600)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    events = [json.loads(line) for line in trained.stdout.splitlines()]
    assert max(e["alive"] for e in events if e["event"] == "NodeChanged") == 2
    kept = kubernetes_s3.objects("runs", f"{dhctl.folder.name}/{record.run_id}/")
    assert any(key.endswith("result.json") for key in kept)
    assert wait_until(lambda: workers(record) == 0, 120, every_s=2), "workers do not leave when idle"
    down = dhctl("down", "pair", "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    receipt = json.loads(down.stdout.splitlines()[-1])
    assert receipt["clean"] is True
    assert "rayclusters.ray.io" in {check["place"] for check in receipt["checks"]}
    assert of_kuberay(kubernetes_cluster, dhctl.namespace, record) == []
    assert (record.logs_dir / "pods").is_dir()


def test_the_end_of_the_lease_ends_a_ray_cluster(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    workers_kept = {"min": 1, "max": 2, "memory": "512MiB"}
    up = dhctl("up", dhctl.spec("pair", workers=workers_kept, kubernetes={"ray": "kuberay"}))
    assert up.returncode == 0, up.stdout + up.stderr
    record, core = dhctl.record(), client.CoreV1Api(kubernetes_cluster.admin())
    # what the lease's cron job does, and all that it may do
    core.delete_namespaced_config_map(record.run_id, dhctl.namespace, propagation_policy="Foreground")
    selector = f"dhctl/run={record.run_id}"
    pods = lambda: core.list_namespaced_pod(dhctl.namespace, label_selector=selector).items  # noqa: E731
    assert wait_until(lambda: not pods(), GONE_S, every_s=1)
    assert wait_until(lambda: not of_kuberay(kubernetes_cluster, dhctl.namespace, record), GONE_S, every_s=1)
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
