"""What runs against the real Kubernetes of the testbed, which is started once for all of it: minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client
from pods.fixtures import tenants_namespace
from pods.runs import PodRuns
from pods.things import Foreign

from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from e2e.driver import clean_environment, end_started
from testbeds.kubernetes.fixtures import KubernetesCluster, kubernetes_cluster, kubernetes_fault_proxy, kubernetes_s3
from testbeds.kubernetes.leftovers import leftovers
from testbeds.object_store import ObjectStore

__all__ = ["kubernetes_cluster", "kubernetes_fault_proxy", "kubernetes_s3"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def engine_path() -> Path:
    """The folder of the Pulumi CLI that the user of this machine has, installed first if need be."""
    return ensure_engine(default_root(), ignore).parent


@pytest.fixture(scope="session")
def bucket(kubernetes_s3: ObjectStore) -> str:
    """s3:// URL of a bucket that is there."""
    return kubernetes_s3.make_bucket("runs")


@pytest.fixture
def namespace(kubernetes_cluster: KubernetesCluster) -> Iterator[str]:
    """A tenant's."""
    with tenants_namespace(kubernetes_cluster) as name:
        yield name


@pytest.fixture
def foreign(kubernetes_cluster: KubernetesCluster, namespace: str) -> Iterator[Foreign]:
    """Somebody else's pod, secret and claim in the namespace; they must outlive every test."""
    things = Foreign(client.CoreV1Api(kubernetes_cluster.admin()), namespace)
    yield things
    things.assert_untouched()


@pytest.fixture
def logged_in(
    kubernetes_cluster: KubernetesCluster, kubernetes_s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Environment of `tenant` and of the object store, for this process too."""
    env = {**kubernetes_cluster.env, **kubernetes_s3.env}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def dhctl(
    tmp_path: Path,
    engine_path: Path,
    kubernetes_cluster: KubernetesCluster,
    logged_in: dict[str, str],
    bucket: str,
    namespace: str,
) -> Iterator[PodRuns]:
    """The command in a home of its own, as tenant. A run that is not gone afterwards is taken down: the test fails."""
    env = {**clean_environment(engine_path, tmp_path / "home"), **logged_in}
    command = PodRuns(tmp_path / "home", tmp_path, env, bucket=bucket, namespace=namespace)
    yield command
    left = end_started(command)
    assert [record.run_id for record in left] == [], "the test left runs that were not taken down"
    runs = [record.run_id for record in command.records()]
    assert [line for line in leftovers(kubernetes_cluster.admin()) if any(run in line for run in runs)] == []
