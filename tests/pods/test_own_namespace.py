"""Runs in a namespace of their own, made by somebody who may make namespaces. Pod Security there is `restricted`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from pods.runs import PodRuns

from dhctl.infra.kubernetes.admission_cluster import OWN_NAMESPACE_RIGHTS
from dhctl.infra.kubernetes.rights import tenant_rules
from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from e2e.driver import clean_environment, end_started
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.leftovers import leftovers
from testbeds.kubernetes.project import claimed_volumes
from testbeds.object_store import ObjectStore

GONE_S = 60


def maker_rules() -> list[dict[str, Any]]:
    """What docs/kubernetes.md wants in all namespaces of who names none."""
    own = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        for right in OWN_NAMESPACE_RIGHTS
    ]
    return [*own, *tenant_rules()]


@pytest.fixture
def maker(kubernetes_cluster: KubernetesCluster, tmp_path: Path) -> Iterator[Path]:
    """kubeconfig of a user of its own who may make namespaces, and work in all of them."""
    home = kubernetes_cluster.make_namespace()
    with kubernetes_cluster.admin() as admin:
        core, rbac = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
        core.create_namespaced_service_account(home, {"metadata": {"name": "maker"}})
        rbac.create_cluster_role({"metadata": {"name": home}, "rules": maker_rules()})
        role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": home}
        who = {"kind": "ServiceAccount", "name": "maker", "namespace": home}
        rbac.create_cluster_role_binding({"metadata": {"name": home}, "roleRef": role, "subjects": [who]})
        token = core.create_namespaced_service_account_token("maker", home, {"spec": {}}).status.token
    body = json.loads(kubernetes_cluster.layout.admin_kubeconfig.read_text())
    body["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "maker.kubeconfig"
    kubeconfig.write_text(json.dumps(body))
    kubeconfig.chmod(0o600)
    yield kubeconfig
    with kubernetes_cluster.admin() as admin:
        rbac = client.RbacAuthorizationV1Api(admin)
        rbac.delete_cluster_role_binding(home)
        rbac.delete_cluster_role(home)
    kubernetes_cluster.remove_namespace(home)


@pytest.fixture
def dhctl(
    tmp_path: Path,
    engine_path: Path,
    kubernetes_cluster: KubernetesCluster,
    kubernetes_s3: ObjectStore,
    bucket: str,
    maker: Path,
) -> Iterator[PodRuns]:
    """The command as the maker, without a namespace. A run that is not gone afterwards is taken down: it fails."""
    env = {**clean_environment(engine_path, tmp_path / "home"), **kubernetes_s3.env, "KUBECONFIG": str(maker)}
    command = PodRuns(tmp_path / "home", tmp_path, env, bucket=bucket)
    yield command
    left = end_started(command)
    assert [record.run_id for record in left] == [], "the test left runs that were not taken down"
    runs = [record.run_id for record in command.records()]
    assert [line for line in leftovers(kubernetes_cluster.admin()) if any(run in line for run in runs)] == []


def up(dhctl: PodRuns) -> RunRecord:
    """A run that is up in a namespace of its own, with the project's folders by claims."""
    done = dhctl("up", dhctl.spec("pair", kubernetes={"volumes": claimed_volumes()}))
    assert done.returncode == 0, done.stdout + done.stderr
    return dhctl.record()


def volumes_of(core: client.CoreV1Api, namespace: str) -> list[str]:
    """Names of the persistent volumes that a claim of the namespace has or had."""
    every = core.list_persistent_volume().items
    return [one.metadata.name for one in every if one.spec.claim_ref and one.spec.claim_ref.namespace == namespace]


def is_gone(core: client.CoreV1Api, namespace: str) -> bool:
    """Whether there is no such namespace."""
    return namespace not in {item.metadata.name for item in core.list_namespace().items}


def test_up_train_down_and_the_namespace_is_gone(dhctl: PodRuns, kubernetes_cluster: KubernetesCluster) -> None:
    record, core = up(dhctl), client.CoreV1Api(kubernetes_cluster.admin())
    labels = core.read_namespace(record.run_id).metadata.labels
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert volumes_of(core, record.run_id)
    trained = dhctl("train", "pair", "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    down = dhctl("down", "pair", "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    receipt = json.loads(down.stdout.splitlines()[-1])
    assert receipt["clean"] is True
    assert "namespaces" in {check["place"] for check in receipt["checks"]}
    assert is_gone(core, record.run_id)
    assert wait_until(lambda: not volumes_of(core, record.run_id), GONE_S), volumes_of(core, record.run_id)


@pytest.mark.thorough
def test_what_the_lease_leaves_is_the_namespace_and_reap_removes_it(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster
) -> None:
    record, admin = up(dhctl), kubernetes_cluster.admin()
    core, name = client.CoreV1Api(admin), record.run_id
    # What the lease's pod does, with its rights, at a time of our own.
    with kubernetes_cluster.admin() as lease:
        lease.set_default_header("Impersonate-User", f"system:serviceaccount:{name}:{name}-lease")
        client.CoreV1Api(lease).delete_namespaced_config_map(name, name, propagation_policy="Foreground")
        with pytest.raises(ApiException, match="Forbidden"):
            client.CoreV1Api(lease).delete_namespace(name)
    kept = [f"Namespace {name}"]
    assert wait_until(lambda: [one for one in leftovers(admin) if name in one] == kept, GONE_S, every_s=1)
    core.patch_namespace(name, {"metadata": {"labels": {"dhctl/expires": "1"}}})
    reaped = dhctl("reap", "--target", "kubernetes", "--namespace", name)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert is_gone(core, name)
    down = dhctl("down", name, "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    assert json.loads(down.stdout.splitlines()[-1])["clean"] is True
    assert wait_until(lambda: not volumes_of(core, name), GONE_S), volumes_of(core, name)
