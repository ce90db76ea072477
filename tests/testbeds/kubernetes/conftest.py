"""What runs against the testbed's own Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from testbeds.kubernetes.fixtures import (
    KubernetesCluster,
    kubernetes_cluster,
    kubernetes_fault_proxy,
    kubernetes_s3,
    make_namespace,
)

__all__ = ["kubernetes_cluster", "kubernetes_fault_proxy", "kubernetes_s3", "make_namespace"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def admin(kubernetes_cluster: KubernetesCluster) -> Iterator[client.ApiClient]:
    """A client as the cluster's administrator."""
    with kubernetes_cluster.admin() as api:
        yield api


@pytest.fixture
def core(admin: client.ApiClient) -> client.CoreV1Api:
    """Of the administrator."""
    return client.CoreV1Api(admin)
