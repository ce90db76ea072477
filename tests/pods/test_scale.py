"""A hundred workers, on simulated nodes."""

from __future__ import annotations

import pytest
from pods.runs import PodRuns
from pods.scale import scale

from testbeds.kubernetes.fixtures import KubernetesCluster

WORKERS = 100


@pytest.mark.slow
def test_a_hundred_workers_and_no_more(dhctl: PodRuns, kubernetes_cluster: KubernetesCluster) -> None:
    scaled = scale(dhctl, kubernetes_cluster, WORKERS, wanted=WORKERS + 20, limit_s=100)
    assert scaled.workers == WORKERS, "all that may be, and none beyond workers.max"
    assert scaled.calls["create"] >= WORKERS
    assert scaled.calls_each < 3, f"too many calls of the API for {WORKERS} workers: {scaled.calls}"
