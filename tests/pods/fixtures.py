"""What tests on Kubernetes of several suites need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dhctl.infra.kubernetes.rights import tenant_rules
from testbeds.kubernetes.fixtures import KubernetesCluster


@contextmanager
def tenants_namespace(cluster: KubernetesCluster, quota: Mapping[str, str] | None = None) -> Iterator[str]:
    """A namespace in which `tenant` has the documented Role and nothing else; gone after the block."""
    name = cluster.make_namespace(quota)
    try:
        cluster.give_tenant(name, list(tenant_rules()))
        yield name
    finally:
        cluster.remove_namespace(name)
