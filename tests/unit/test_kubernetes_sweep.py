"""The sweep: balancers, the run object with all it owns, the rest, the namespace; nothing of others, no silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.events import Event, ResourceChanged
from dhctl.infra.kubernetes import discovery, inventory, sweep
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.record import RunRecord
from unit.http_kubernetes import HttpKubernetes, Resource

RUN, OTHER = "dh-aaaabbbbcc", "dh-ccccbbbbaa"
MARK = Mark(RUN, 1_800_000_000)
Thing = dict[str, Any]
Sweeping = Callable[..., set[str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inventory, discovery, sweep):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "RUN_OBJECT_S", 0.2)
    monkeypatch.setattr(sweep, "GONE_S", 0.1)
    monkeypatch.setattr(sweep, "BALANCERS_S", 0.1)
    monkeypatch.setattr(sweep, "DEADLINE_S", 1.0)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def cluster(there: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


@pytest.fixture
def sweeping(cluster: Cluster, record: RunRecord, told: list[Event]) -> Sweeping:
    def run(namespace: str = "lab") -> set[str]:
        return sweep.Sweep(cluster, namespace, RUN, record.ledger, told.append).run()

    return run


def add(there: HttpKubernetes, what: str, name: str, mark: Mark | None = MARK, **more: Any) -> Thing:
    api, kind = what.split()
    labels = mark.labels("part") if mark else {}
    metadata = {"name": name, "labels": labels, **more.pop("metadata", {})}
    return there.add({"apiVersion": api, "kind": kind, "metadata": metadata, **more})


def fill(there: HttpKubernetes, namespace: str = "lab") -> Thing:
    """A run's objects under its run object, and a pod that hangs on nothing."""
    place = {"namespace": namespace}
    root = add(there, "v1 ConfigMap", RUN, metadata=place)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": RUN, "uid": root["metadata"]["uid"]}
    owned = {**place, "ownerReferences": [{**owner, "blockOwnerDeletion": True}]}
    for what, part in (
        ("v1 Secret", "token"),
        ("v1 Pod", "head"),
        ("v1 Service", "head"),
        ("batch/v1 CronJob", "lease"),
    ):
        add(there, what, MARK.name(part), metadata=owned)
    add(there, "v1 Pod", MARK.name("w-1"), metadata=place)
    return root


def refusals(record: RunRecord) -> dict[str, str]:
    told = {str(e.detail["id"]): str(e.detail["name"]) for e in record.ledger.entries() if e.act == "resource.delete"}
    return {told[ident]: why for ident, why in inventory.refusals(record.ledger.entries()).items() if why}


def left(there: HttpKubernetes) -> list[str]:
    kinds = ("configmaps", "secrets", "pods", "services", "cronjobs", "persistentvolumeclaims")
    return [name for plural in kinds for name in there.names(plural)]


def test_the_run_object_goes_first_and_takes_what_it_owns(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord, told: list[Event]
) -> None:
    fill(there)
    assert sweeping() == set()
    assert left(there) == []
    assert there.deleted == [RUN, MARK.name("w-1")]
    done = [e.detail["name"] for e in record.ledger.entries() if (e.act, e.phase) == ("resource.delete", "done")]
    assert done == [RUN, MARK.name("w-1")]
    gone = [(e.kind, e.name) for e in told if isinstance(e, ResourceChanged) and e.status == "deleted"]
    assert ("pod", MARK.name("head")) in gone
    assert len(gone) == len(set(gone)) == 6


def test_a_namespace_without_anything_is_left_alone(there: HttpKubernetes, sweeping: Sweeping) -> None:
    assert sweeping() == sweeping() == set()
    assert there.deleted == []


def test_nothing_of_others_is_touched(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    other = Mark(OTHER, 5)
    for what in ("v1 Pod", "v1 Secret", "v1 PersistentVolumeClaim"):
        add(there, what, "foreign", None)
        add(there, what, f"{RUN}-lookalike", None)
        add(there, what, other.name("x"), other)
    assert sweeping() == set()
    assert left(there) == ["foreign", f"{RUN}-lookalike", other.name("x")] * 3


def test_the_label_is_read_once_more_before_a_deletion(
    there: HttpKubernetes, sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(there, "v1 Pod", "taken")
    add(there, "v1 Pod", "replaced")
    answer = there.answer

    def changing(method: str, target: str, body: Any, headers: dict[str, str]) -> Any:
        told = answer(method, target, body, headers)
        if method == "GET" and target.startswith("/api/v1/namespaces/lab/pods?"):
            there.patch("pods", "taken", {"metadata": {"labels": {"dhctl/run": OTHER}}})
            if there.get("pods", "replaced"):
                there.drop("pods", "replaced")
                add(there, "v1 Pod", "replaced", None)
        return told

    monkeypatch.setattr(there, "answer", changing)
    sweeping()
    assert there.deleted == []
    assert left(there) == ["taken", "replaced"]


def test_a_deletion_means_exactly_the_object_that_was_seen(
    there: HttpKubernetes, sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[Any] = []
    answer = there.answer

    def noting(method: str, target: str, body: Any, headers: dict[str, str]) -> Any:
        if method == "DELETE":
            bodies.append(body)
        return answer(method, target, body, headers)

    monkeypatch.setattr(there, "answer", noting)
    pod = add(there, "v1 Pod", "p")
    sweeping()
    assert [body["preconditions"] for body in bodies] == [{"uid": pod["metadata"]["uid"]}]


def test_balancers_go_before_everything_else(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    add(there, "v1 Service", "balancer", spec={"type": "LoadBalancer"})
    add(there, "v1 Service", "inner", spec={"type": "ClusterIP"})
    assert sweeping() == set()
    assert there.deleted == ["balancer", RUN, MARK.name("w-1"), "inner"]


def test_makers_of_pods_go_before_pods_and_rights_last(there: HttpKubernetes, sweeping: Sweeping) -> None:
    there.resources.append(Resource("ray.io/v1", "rayclusters", "RayCluster"))
    add(there, "v1 ServiceAccount", "account")
    add(there, "rbac.authorization.k8s.io/v1 RoleBinding", "binding")
    add(there, "v1 PersistentVolumeClaim", "claim")
    add(there, "v1 Pod", "pod")
    add(there, "batch/v1 Job", "job")
    add(there, "ray.io/v1 RayCluster", "cluster")
    assert sweeping() == set()
    assert there.deleted == ["cluster", "job", "pod", "claim", "binding", "account"]


def test_what_the_api_refuses_is_told_with_its_words(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord, told: list[Event]
) -> None:
    fill(there)
    secret = add(there, "v1 Secret", "kept")
    there.refuses["DELETE kept"] = (403, "admission webhook says no")
    assert sweeping() == {secret["metadata"]["uid"]}
    assert refusals(record) == {"kept": "admission webhook says no (HTTP 403)"}
    assert there.deleted.count("kept") == 2, "once more, and no oftener"
    failed = {(e.kind, e.detail) for e in told if isinstance(e, ResourceChanged) and e.status == "failed"}
    assert failed == {("secret", "admission webhook says no (HTTP 403)")}


def test_a_stuck_finalizer_is_named_and_keeps_nothing_else(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord
) -> None:
    root = fill(there)
    there.patch("secrets", MARK.name("token"), {"metadata": {"finalizers": ["example.org/keep"]}})
    held = sweeping()
    assert root["metadata"]["uid"] in held
    assert left(there) == [RUN, MARK.name("token")]
    told = refusals(record)
    assert told[MARK.name("token")].startswith("held by the finalizer example.org/keep since")
    assert "foregroundDeletion" in told[RUN]


def test_a_pod_whose_end_nobody_confirms_is_told_with_its_node(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord
) -> None:
    fill(there)
    worker = MARK.name("w-1")
    there.patch("pods", worker, {"spec": {"nodeName": "n1"}})
    there.lingering.add(worker)
    assert len(sweeping()) == 1
    assert "its end is not confirmed on node n1; is the node alive?" in refusals(record)[worker]


def test_a_pod_whose_end_nobody_confirms_is_not_waited_for_until_the_deadline(
    there: HttpKubernetes, sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "DEADLINE_S", 60.0)
    root = fill(there)
    worker = MARK.name("w-1")
    there.lingering.add(worker)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": RUN, "uid": root["metadata"]["uid"]}
    there.patch("pods", worker, {"metadata": {"ownerReferences": [{**owner, "blockOwnerDeletion": True}]}})
    started = time.monotonic()
    assert len(sweeping()) == 2
    assert left(there) == [RUN, worker]
    assert time.monotonic() - started < 20


def test_deletions_that_lose_races_are_asked_for_again(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    there.broken["DELETE"] = [409, 409, 409, 200]
    assert sweeping() == set()


def test_trouble_with_one_kind_does_not_keep_the_others(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    there.broken["GET /api/v1/namespaces/lab/limitranges"] = [500]
    with pytest.raises(ClusterApiError, match="cannot list limitranges: out of order"):
        sweeping()
    assert left(there) == []


def test_trouble_that_passes_is_outlived(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    there.broken[f"DELETE /api/v1/namespaces/lab/configmaps/{RUN}"] = [503, 500, 200]
    there.broken["GET /apis"] = [200, 503, 503, 200]
    assert sweeping() == set()
    assert left(there) == []


def test_kinds_that_the_caller_may_not_list_are_passed_over(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    there.forbidden.add(("list", "limitranges"))
    assert sweeping() == set()


def own_namespace(there: HttpKubernetes) -> None:
    there.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RUN, "labels": MARK.labels("namespace")}})
    fill(there, RUN)


def test_the_namespace_that_the_run_made_goes_last(there: HttpKubernetes, sweeping: Sweeping) -> None:
    own_namespace(there)
    there.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": RUN}})
    assert sweeping(RUN) == set()
    assert RUN not in there.names("namespaces")
    assert there.deleted == [RUN, MARK.name("w-1"), RUN]
    assert left(there) == []
    assert sweeping(RUN) == set()


@pytest.mark.parametrize("what", ["v1 Pod", "v1 PersistentVolumeClaim"])
def test_a_namespace_with_the_work_of_others_stays(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord, what: str
) -> None:
    own_namespace(there)
    add(there, what, "foreign", None, metadata={"namespace": RUN})
    assert len(sweeping(RUN)) == 1
    assert left(there) == ["foreign"]
    kind = what.split()[1].lower()
    assert refusals(record) == {RUN: f"holds {kind} foreign, which is not this run's"}


def test_a_namespace_that_cannot_be_looked_through_stays(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord
) -> None:
    own_namespace(there)
    there.forbidden.add(("list", "persistentvolumeclaims"))
    assert len(sweeping(RUN)) == 1
    assert refusals(record)[RUN].startswith("whether others use it cannot be seen: persistentvolumeclaims is forbidden")


def test_a_namespace_that_stays_is_told_with_its_controllers_words(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord
) -> None:
    own_namespace(there)
    words = "Some resources are remaining: things.example.org has 1 resource instances"
    conditions = [{"type": "NamespaceContentRemaining", "status": "True", "message": words}]
    there.patch("namespaces", RUN, {"status": {"conditions": conditions}}, "")
    there.lingering.add("namespaces")
    assert len(sweeping(RUN)) == 1
    assert refusals(record) == {RUN: words}


def test_a_given_namespace_is_never_deleted(there: HttpKubernetes, sweeping: Sweeping) -> None:
    fill(there)
    assert sweeping() == set()
    assert "lab" in there.names("namespaces")


def test_a_volume_that_its_class_retains_is_told_and_not_waited_for(
    there: HttpKubernetes, sweeping: Sweeping, record: RunRecord
) -> None:
    claim = {"claimRef": {"namespace": "lab", "name": MARK.name("data"), "uid": "u"}}
    volume = {"spec": {**claim, "persistentVolumeReclaimPolicy": "Retain"}}
    there.add({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, **volume})
    add(there, "v1 PersistentVolumeClaim", MARK.name("data"))
    assert len(sweeping()) == 1
    assert there.deleted == [MARK.name("data")]
    assert "Retain" in refusals(record)["pv"]


def test_two_hundred_pods_are_asked_for_side_by_side(there: HttpKubernetes, sweeping: Sweeping) -> None:
    for number in range(200):
        add(there, "v1 Pod", f"w-{number}")
    assert sweeping() == set()
    assert there.names("pods") == []
