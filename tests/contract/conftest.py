"""The contract suite runs on every target; those that are clouds need their testbed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pods.fixtures import tenants_namespace

from testbeds.kubernetes.fixtures import KubernetesCluster, kubernetes_cluster, kubernetes_s3
from testbeds.openstack.fixtures import openstack_cloud, s3_server

__all__ = ["kubernetes_cluster", "kubernetes_s3", "openstack_cloud", "s3_server"]


@pytest.fixture
def namespace(kubernetes_cluster: KubernetesCluster) -> Iterator[str]:
    """One with a quota: a tenant may not look at nodes."""
    with tenants_namespace(kubernetes_cluster, {"requests.cpu": "8"}) as name:
        yield name
