"""Pytest fixtures of the testbed; a conftest imports those that its tests need.

`kubernetes_cluster` and `kubernetes_s3` last a session. Where they cannot run, tests are skipped with a sentence; in CI
(CI=true) they fail instead.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from testbeds.kubernetes.cluster import connect, wait_api
from testbeds.kubernetes.fault_proxy import FaultProxy
from testbeds.kubernetes.kuberay import Operator
from testbeds.kubernetes.layout import MACHINE_ADDRESS, TENANT, Layout
from testbeds.kubernetes.leftovers import leftovers
from testbeds.kubernetes.testbed import Testbed
from testbeds.object_store import ObjectStore, object_store
from testbeds.sharing import KEEP_ENV, run_verb, shared, skip

GONE_LIMIT_S = 60
ACCOUNT_LIMIT_S = 30
Level = Literal["privileged", "baseline", "restricted"]


@dataclass(frozen=True)
class KubernetesCluster:
    """A running testbed. `env` is what a user of it has in the environment."""

    layout: Layout

    @property
    def env(self) -> dict[str, str]:
        """The user `tenant`, who may do nothing but what a test gave them."""
        return {"KUBECONFIG": str(self.layout.tenant_kubeconfig)}

    def tenant(self) -> client.ApiClient:
        """A client as tenant."""
        return connect(self.layout.tenant_kubeconfig)

    def admin(self) -> client.ApiClient:
        """A client as the cluster's administrator."""
        return connect(self.layout.admin_kubeconfig)

    def make_namespace(self, quota: Mapping[str, str] | None = None, level: Level = "privileged") -> str:
        """A fresh namespace, for use at once; its name. A quota is a ResourceQuota named `quota`.

        Only at level privileged are pods admitted that mount this machine's folders (project.py).
        """
        name = f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": level}
        with self.admin() as admin:
            core = client.CoreV1Api(admin)
            core.create_namespace({"metadata": {"name": name, "labels": labels}})
            if quota is not None:
                body = {"metadata": {"name": "quota"}, "spec": {"hard": dict(quota)}}
                core.create_namespaced_resource_quota(name, body)
            self._wait_usable(core, name, quota)
        return name

    def give_tenant(self, namespace: str, rules: Sequence[Mapping[str, Any]]) -> None:
        """Gives tenant these rules of a Role, and no others, in a namespace."""
        meta = {"name": TENANT}
        who = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": TENANT}
        role = {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io", "name": TENANT}
        with self.admin() as admin:
            rbac = client.RbacAuthorizationV1Api(admin)
            for delete in (rbac.delete_namespaced_role_binding, rbac.delete_namespaced_role):
                try:
                    delete(TENANT, namespace)
                except ApiException as trouble:
                    if trouble.status != 404:
                        raise
            rbac.create_namespaced_role(namespace, {"metadata": meta, "rules": [dict(rule) for rule in rules]})
            rbac.create_namespaced_role_binding(namespace, {"metadata": meta, "roleRef": role, "subjects": [who]})

    def remove_namespace(self, name: str) -> None:
        """Has it deleted with all that is in it. Kubernetes begins after five seconds; nobody waits for that."""
        with self.admin() as admin:
            core = client.CoreV1Api(admin)
            core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
            core.delete_namespace(name)

    def not_gone(self) -> list[str]:
        """Namespaces that were to go and still are there after a while, with what holds them."""
        end = time.monotonic() + GONE_LIMIT_S
        with self.admin() as admin:
            core = client.CoreV1Api(admin)
            while going := [item for item in core.list_namespace().items if item.metadata.deletion_timestamp]:
                if time.monotonic() > end:
                    break
                time.sleep(0.2)
        told = {item.metadata.name: [one.message for one in item.status.conditions or ()] for item in going}
        return [f"namespace {name} does not go: {messages}" for name, messages in told.items()]

    def marked(self) -> set[str]:
        """What carries a run's mark."""
        with self.admin() as admin:
            return set(leftovers(admin))

    @staticmethod
    def _wait_usable(core: client.CoreV1Api, name: str, quota: Mapping[str, str] | None) -> None:
        """Pods are refused before the account is there, and with a quota before it was counted."""
        end = time.monotonic() + ACCOUNT_LIMIT_S
        while time.monotonic() < end:
            accounts = core.list_namespaced_service_account(name).items
            quotas = core.list_namespaced_resource_quota(name).items
            if accounts and all(item.status.hard for item in quotas) and len(quotas) == (quota is not None):
                return
            time.sleep(0.05)
        pytest.fail(f"the controllers did not fill namespace {name} in {ACCOUNT_LIMIT_S} s", pytrace=False)


@pytest.fixture(scope="session")
def kubernetes_cluster() -> Iterator[KubernetesCluster]:
    """The testbed: started unless it runs, stopped at the end if tests started it (DHCTL_TESTBED_KEEP=1 keeps it).

    When the session ends, whatever carries a run's mark that was not there before is an error, unless other sessions
    use the testbed too: it may be theirs.
    """
    layout = Layout.of_environment()
    testbed = Testbed(layout, lambda _: None)
    ours = layout.state / "started-by-tests"
    env = layout.env
    if not testbed.is_up() and (obstacle := testbed.obstacle()):
        skip(obstacle)
    with shared(layout.state) as alone:
        if run_verb("kubernetes", env, "up") == "started" and not os.environ.get(KEEP_ENV):
            ours.touch()
        cluster = KubernetesCluster(layout)
        with cluster.admin() as admin:
            wait_api(admin)  # another session may be holding it down
        if Operator.given():
            run_verb("kubernetes", env, "operate")
        before = cluster.marked()
        try:
            yield cluster
            left = [*cluster.not_gone(), *(cluster.marked() - before)] if alone() else []
        finally:
            # Of several sessions that share it, the last one stops it.
            if ours.exists() and alone():
                run_verb("kubernetes", env, "down")
    assert left == [], "the tests left these in the cluster"


class MakeNamespace(Protocol):
    """`KubernetesCluster.make_namespace`."""

    def __call__(self, quota: Mapping[str, str] | None = None, level: Level = "privileged") -> str:
        """The new namespace's name."""


@pytest.fixture
def make_namespace(kubernetes_cluster: KubernetesCluster) -> Iterator[MakeNamespace]:
    """Makes namespaces, which go with the test."""
    made: list[str] = []

    def make(quota: Mapping[str, str] | None = None, level: Level = "privileged") -> str:
        made.append(kubernetes_cluster.make_namespace(quota, level))
        return made[-1]

    yield make
    for name in made:
        kubernetes_cluster.remove_namespace(name)


@pytest.fixture(scope="session")
def kubernetes_s3(
    kubernetes_cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    """An S3 server that both this machine and the cluster's pods reach."""
    with object_store(tmp_path_factory.mktemp("s3"), MACHINE_ADDRESS) as store:
        yield store


@pytest.fixture
def kubernetes_fault_proxy(kubernetes_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[FaultProxy]:
    """Between a client with `kubernetes_fault_proxy.kubeconfig`, who is tenant, and the API server."""
    with FaultProxy(kubernetes_cluster.layout, tmp_path) as proxy:
        yield proxy
