"""Pods that are lost while a job trains: the head's is made again and the job goes on, a worker's costs one restart."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from kubernetes import client
from pods.runs import PodRuns
from pods.test_failures import receipt_of, worker_names
from pods.things import Foreign

from e2e.losses import assert_went_on, at_epoch, result
from testbeds.kubernetes.conditions import delete_pod
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.object_store import ObjectStore

WORKERS = {"min": 0, "max": 2, "memory": "512MiB", "idle_timeout": "30s"}


def noted(store: ObjectStore, dhctl: PodRuns, run_id: str) -> list[str]:
    """Names of what the job wrote below `steps/`."""
    keys = store.objects("runs", f"{dhctl.folder.name}/{run_id}/steps/")
    return [PurePosixPath(key).name for key in keys]


@pytest.mark.thorough
def test_a_heads_pod_that_is_deleted_is_made_again_and_the_job_goes_on(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, kubernetes_s3: ObjectStore, foreign: Foreign
) -> None:
    run = dhctl.start("run", dhctl.spec("steps", workers=WORKERS))
    record = dhctl.until(at_epoch(3), timeout_s=400)
    (first,) = worker_names(kubernetes_cluster, record)
    delete_pod(kubernetes_cluster.admin(), dhctl.namespace, f"{record.run_id}-head")
    said, _ = run.communicate(timeout=500)
    assert run.returncode == 0, said
    assert f"the head is lost: pod {record.run_id}-head is" in said
    assert_went_on(record, noted(kubernetes_s3, dhctl, record.run_id), after=3)
    assert receipt_of(record)["clean"] is True
    core = client.CoreV1Api(kubernetes_cluster.admin())
    assert first not in [pod.metadata.name for pod in core.list_namespaced_pod(dhctl.namespace).items]


@pytest.mark.slow
def test_a_workers_pod_that_is_deleted_costs_one_restart_of_the_training(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    # torch and Ray's train controller need more than the other jobs
    room = {"workers": {**WORKERS, "memory": "1536MiB"}, "kubernetes": {"head_memory": "4GiB"}}
    run = dhctl.start("run", dhctl.spec("noted", **room))
    record = dhctl.until(at_epoch(4), timeout_s=400)
    delete_pod(kubernetes_cluster.admin(), dhctl.namespace, min(worker_names(kubernetes_cluster, record)))
    said, _ = run.communicate(timeout=500)
    assert run.returncode == 0, said
    found = result(record, 1)["result"]
    assert abs(found["ray"] - found["undisturbed"]) < 1e-4, json.dumps(found)
    assert receipt_of(record)["clean"] is True
