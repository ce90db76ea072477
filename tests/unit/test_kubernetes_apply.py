"""One object: applied, read, waited for, deleted; with a server in trouble, and with other owners about."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.kubernetes import apply as applying
from dhctl.infra.kubernetes import client
from dhctl.infra.kubernetes.apply import (
    ConflictError,
    ForeignObjectError,
    apply,
    delete,
    drifted,
    kind_of,
    read,
    wait_ready,
)
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.readiness import has_address
from dhctl.infra.kubernetes.section import KubernetesSection
from unit.http_kubernetes import HANGS_UP, LOST, HttpKubernetes, Resource

RUN = "dh-aaaabbbbcc"
Thing = dict[str, Any]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    monkeypatch.setattr(applying, "LOOKS_S", (0.01,))
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def cluster(server: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


def thing(kind: str = "ConfigMap", name: str = "one", run: str = RUN, **values: Any) -> Thing:
    api = {"CronJob": "batch/v1", "Job": "batch/v1"}.get(kind, "v1")
    metadata: Thing = {"name": name, "labels": {"dhctl/run": run} if run else {}}
    if kind != "Namespace":
        metadata["namespace"] = "lab"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **values}


def pod(name: str = "one") -> Thing:
    return thing("Pod", name, spec={"containers": [{"name": "ray", "image": "ray"}]})


def test_an_object_is_made_and_read(server: HttpKubernetes, cluster: Cluster) -> None:
    made = apply(cluster, thing(data={"key": "value"}))
    assert made["metadata"]["uid"]
    assert read(cluster, thing()) == made
    assert server.get("configmaps", "one") == made
    assert [row["manager"] for row in made["metadata"]["managedFields"]] == ["dhctl"]


def test_a_second_time_changes_only_what_is_different(server: HttpKubernetes, cluster: Cluster) -> None:
    first = apply(cluster, thing(data={"a": "1", "b": "1"}))
    assert apply(cluster, thing(data={"a": "1", "b": "1"})) == first
    second = apply(cluster, thing(data={"a": "2"}))
    assert second["data"] == {"a": "2"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]


def test_the_namespace_is_the_contexts_where_the_manifest_has_none(server: HttpKubernetes, cluster: Cluster) -> None:
    manifest = thing()
    del manifest["metadata"]["namespace"]
    assert apply(cluster, manifest)["metadata"]["namespace"] == "lab"


def test_kinds_of_the_whole_cluster_have_no_namespace(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing("Namespace", "mine"))
    assert "PATCH /api/v1/namespaces/mine" in server.asked
    wait_ready(cluster, thing("Namespace", "mine"))


def test_a_kind_is_asked_for_once_and_missing_ones_are_named(server: HttpKubernetes, cluster: Cluster) -> None:
    for _ in range(3):
        assert kind_of(cluster, "batch/v1", "CronJob").plural == "cronjobs"
    assert server.asked.count("GET /apis/batch/v1") == 1
    with pytest.raises(ClusterApiError, match=r"serves no RayCluster of ray.io/v1"):
        kind_of(cluster, "ray.io/v1", "RayCluster")
    server.resources.append(Resource("ray.io/v1", "rayclusters", "RayCluster"))
    assert (
        kind_of(cluster, "ray.io/v1", "RayCluster").path("lab", "a") == "/apis/ray.io/v1/namespaces/lab/rayclusters/a"
    )


def test_a_dry_run_stores_nothing(server: HttpKubernetes, cluster: Cluster) -> None:
    assert apply(cluster, thing(data={"a": "1"}), dry_run=True)["data"] == {"a": "1"}
    assert (server.writes, server.names("configmaps")) == ([], [])


def test_a_conflict_names_the_other_manager(server: HttpKubernetes, cluster: Cluster) -> None:
    server.add(thing(data={"a": "theirs"}), manager="argocd")
    with pytest.raises(ConflictError, match=r'conflict with "argocd" using v1: \.data\.a') as raised:
        apply(cluster, thing(data={"a": "ours"}))
    assert raised.value.status == 409
    assert (server.get("configmaps", "one") or {})["data"] == {"a": "theirs"}


@pytest.mark.parametrize(("run", "whose"), [("", "somebody else"), ("dh-other22222", "run dh-other22222")])
def test_a_foreign_object_of_that_name_stays_as_it_is(
    run: str, whose: str, server: HttpKubernetes, cluster: Cluster
) -> None:
    before = server.add(thing(run=run, data={"a": "1"}))
    for act in (lambda: apply(cluster, thing(data={"b": "2"})), lambda: delete(cluster, thing(), RUN)):
        with pytest.raises(ForeignObjectError, match=f"ConfigMap one is of {whose}, and stays as it is"):
            act()
    assert server.get("configmaps", "one") == before
    assert server.writes == []


def test_what_is_being_deleted_is_not_applied(server: HttpKubernetes, cluster: Cluster) -> None:
    server.lingering.add("one")
    server.add(thing())
    cluster.call("DELETE", "/api/v1/namespaces/lab/configmaps/one", {})
    with pytest.raises(ClusterApiError, match="is being deleted"):
        apply(cluster, thing())


@pytest.mark.parametrize("trouble", [[500, 200], [503, 429, 200], [HANGS_UP, 200], [LOST, 200]])
def test_a_server_in_trouble_is_asked_again(trouble: list[int], server: HttpKubernetes, cluster: Cluster) -> None:
    server.broken["PATCH"] = trouble
    made = apply(cluster, thing(data={"a": "1"}))
    assert server.names("configmaps") == ["one"]
    assert made["data"] == {"a": "1"}


def test_a_write_that_lost_a_race_is_repeated(server: HttpKubernetes, cluster: Cluster) -> None:
    server.broken["PATCH"] = [409, 409, 200]
    assert apply(cluster, thing(data={"a": "1"}))["data"] == {"a": "1"}


def test_races_are_lost_for_a_while_only(
    server: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "RACED_S", 0.05)
    server.broken["PATCH"] = [409]
    with pytest.raises(ConflictError, match="out of order"):
        apply(cluster, thing())


def test_a_refusal_is_not_repeated(server: HttpKubernetes, cluster: Cluster) -> None:
    server.forbidden.add(("patch", "configmaps"))
    with pytest.raises(ClusterApiError, match=r'cannot apply ConfigMap one: configmaps "one" is forbidden.*docs/kube'):
        apply(cluster, thing())
    assert [call for call in server.asked if call.startswith("PATCH")] == [
        "PATCH /api/v1/namespaces/lab/configmaps/one"
    ]


def test_patience_ends(server: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.patiently, "__defaults__", (0.1,))
    server.broken["GET"] = [503]
    with pytest.raises(ClusterApiError, match="out of order"):
        read(cluster, thing())


def test_drift_is_what_others_changed(server: HttpKubernetes, cluster: Cluster) -> None:
    assert drifted(cluster, thing(data={"a": "1"}))
    apply(cluster, thing(data={"a": "1"}))
    assert not drifted(cluster, thing(data={"a": "1"}))
    server.patch("configmaps", "one", {"data": {"other": "x"}, "metadata": {"labels": {"team": "x"}}})
    assert not drifted(cluster, thing(data={"a": "1"}))
    server.patch("configmaps", "one", {"data": {"a": "2"}})
    assert drifted(cluster, thing(data={"a": "1"}))
    assert all("?dryRun" in call or call.startswith("GET") for call in server.asked[-2:])


def test_a_pod_is_waited_for(server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())
    looks: list[int] = []

    def between() -> None:
        looks.append(1)
        if len(looks) == 3:
            server.pod_runs("one", address="10.1.2.3")

    assert wait_ready(cluster, pod(), between=between)["status"]["podIP"] == "10.1.2.3"
    assert len(looks) == 3


def test_waiting_ends_when_it_is_told_to(server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_ready(cluster, pod(), between=interrupted)


def test_an_address_comes_before_readiness(server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())
    server.patch("pods", "one", {"status": {"podIP": "10.1.2.3"}})
    assert wait_ready(cluster, pod(), judged=has_address)
    with pytest.raises(ClusterError, match="not ready"):
        wait_ready(cluster, pod(), timeout_s=0.05)


def test_the_schedulers_reason_is_told_when_time_is_up(server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())
    server.pod_pends("one", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    with pytest.raises(ClusterError, match=r"no node takes it: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu"):
        wait_ready(cluster, pod(), timeout_s=0.05)


def waiting(reason: str, message: str = "", restarts: int = 0) -> Thing:
    state = {"waiting": {"reason": reason, "message": message}}
    ended = {"terminated": {"reason": "Error", "exitCode": 3, "message": "no module named ray"}}
    row = {"name": "ray", "state": state, "restartCount": restarts, **({"lastState": ended} if restarts else {})}
    return {"status": {"containerStatuses": [row]}}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (waiting("InvalidImageName", "bad"), "failed: InvalidImageName bad; set kubernetes.image"),
        (waiting("CreateContainerConfigError", "no secret"), "failed: CreateContainerConfigError no secret; check"),
        (waiting("CrashLoopBackOff", restarts=3), "failed: Error, exit status 3: no module named ray; its log"),
        (waiting("ImagePullBackOff", "denied"), "not ready after 0 s: ImagePullBackOff denied; check kubernetes.image"),
        (waiting("CrashLoopBackOff", restarts=1), "not ready after 0 s: it is pending"),
        ({"status": {"phase": "Failed", "reason": "Evicted", "message": "low"}}, "failed: Evicted: low"),
    ],
)
def test_a_pods_failure_is_told(status: Thing, told: str, server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())
    server.patch("pods", "one", status)
    with pytest.raises(ClusterError, match=told):
        wait_ready(cluster, pod(), timeout_s=0.05)


def test_the_newest_warning_about_a_pod_is_told(server: HttpKubernetes, cluster: Cluster) -> None:
    server.new_pods = "Pending"
    apply(cluster, pod())
    server.add_event("one", "FailedMount", "secret not found")
    with pytest.raises(ClusterError, match="secret not found"):
        wait_ready(cluster, pod(), timeout_s=0.05)
    server.forbidden.add(("list", "events"))
    with pytest.raises(ClusterError, match="it is pending"):
        wait_ready(cluster, pod(), timeout_s=0.05)


def test_a_pod_that_ran_out_of_memory(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, pod())
    server.patch("pods", "one", {"status": {"conditions": []}})
    server.pod_fails("one", "OOMKilled", 137)
    with pytest.raises(ClusterError, match="failed: OOMKilled, exit status 137"):
        wait_ready(cluster, pod())


def test_what_goes_while_it_is_waited_for(server: HttpKubernetes, cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="Pod one is gone"):
        wait_ready(cluster, pod())


def claim(**spec: Any) -> Thing:
    return thing("PersistentVolumeClaim", spec=spec)


def storage_class(server: HttpKubernetes, mode: str) -> None:
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}
    server.add({**body, "volumeBindingMode": mode})


def test_a_claim_for_several_nodes_says_what_its_class_must_be_able_to(
    server: HttpKubernetes, cluster: Cluster
) -> None:
    apply(cluster, claim(storageClassName="fast", accessModes=["ReadWriteMany"]))
    storage_class(server, "Immediate")
    with pytest.raises(ClusterError, match=r"set kubernetes.storage_class to one .* \(ReadWriteMany\)"):
        wait_ready(cluster, claim(), timeout_s=0.05)


def test_a_claim_is_bound_or_waits_for_its_first_pod(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, claim(storageClassName="fast"))
    storage_class(server, "Immediate")
    with pytest.raises(ClusterError, match=r"no volume is bound to it; set kubernetes.storage_class"):
        wait_ready(cluster, claim(), timeout_s=0.05)
    server.forbidden.add(("get", "storageclasses"))
    wait_ready(cluster, claim())
    server.forbidden.clear()
    storage_class(server, "WaitForFirstConsumer")
    wait_ready(cluster, claim())
    storage_class(server, "Immediate")
    server.patch("persistentvolumeclaims", "one", {"status": {"phase": "Bound"}})
    wait_ready(cluster, claim())
    server.patch("persistentvolumeclaims", "one", {"status": {"phase": "Lost"}})
    with pytest.raises(ClusterError, match="its volume is lost"):
        wait_ready(cluster, claim())


def test_a_job_is_complete_or_failed(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing("Job"))
    with pytest.raises(ClusterError, match="it is not complete"):
        wait_ready(cluster, thing("Job"), timeout_s=0.05)
    server.patch("jobs", "one", {"status": {"conditions": [{"type": "Failed", "status": "True", "message": "why"}]}})
    with pytest.raises(ClusterError, match="Job one failed: why"):
        wait_ready(cluster, thing("Job"))
    server.patch("jobs", "one", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    wait_ready(cluster, thing("Job"))


def test_what_has_no_rule_is_ready_when_it_is_there(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing("CronJob"))
    assert wait_ready(cluster, thing("CronJob"))["kind"] == "CronJob"


def test_deletion_takes_all_that_is_owned_and_waits(server: HttpKubernetes, cluster: Cluster) -> None:
    uid = apply(cluster, thing(name=RUN))["metadata"]["uid"]
    owned = pod("two")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": RUN, "uid": uid, "blockOwnerDeletion": True}
    owned["metadata"]["ownerReferences"] = [owner]
    apply(cluster, owned)
    server.add(thing("Pod", "foreign", run=""))
    server.lingering.add("two")
    waiter = threading.Timer(0.1, lambda: server.let_go("pods", "two"))
    waiter.start()
    delete(cluster, thing(name=RUN), RUN)
    assert (server.names("configmaps"), server.names("pods")) == ([], ["foreign"])
    assert server.deleted == [RUN]
    waiter.join()


def test_what_owns_nothing_does_not_wait_for_the_garbage_collector(server: HttpKubernetes, cluster: Cluster) -> None:
    for one in (thing(name=RUN), thing(), thing("CronJob"), pod()):
        apply(cluster, one)
        delete(cluster, one, RUN)
    policies = [options["propagationPolicy"] for _, options in server.delete_options]
    assert policies == ["Foreground", "Background", "Foreground", "Background"]


def test_what_is_gone_is_deleted(server: HttpKubernetes, cluster: Cluster) -> None:
    delete(cluster, thing(), RUN)
    assert server.writes == []


def test_a_lost_answer_to_a_deletion_is_no_error(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing())
    server.broken["DELETE"] = [LOST, 200]
    delete(cluster, thing(), RUN)
    assert server.names("configmaps") == []


def test_a_deletion_that_lost_a_race_is_asked_for_again(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing())
    server.broken["DELETE"] = [409, 409, 200]
    delete(cluster, thing(), RUN, timeout_s=5)
    assert server.names("configmaps") == []


def test_a_finalizer_that_holds_is_named(server: HttpKubernetes, cluster: Cluster) -> None:
    manifest = thing()
    manifest["metadata"]["finalizers"] = ["example.org/backup"]
    server.add(manifest)
    with pytest.raises(ClusterError, match=r"ConfigMap one is still there.*finalizer example.org/backup holds it"):
        delete(cluster, thing(), RUN, timeout_s=0.05)
    assert len(server.deleted) == 1


def test_a_node_that_does_not_answer_is_named(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, pod())
    server.patch("pods", "one", {"spec": {"nodeName": "n1"}})
    server.lingering.add("one")
    cluster.call("DELETE", "/api/v1/namespaces/lab/pods/one", {})
    with pytest.raises(ClusterError, match="its end is not confirmed on node n1"):
        delete(cluster, pod(), RUN, timeout_s=0.05)


def test_one_made_anew_by_another_meanwhile_stays(
    server: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(cluster, thing())

    def exchanged(cluster: Cluster, manifest: Thing, uid: str) -> None:
        server.add(thing(run="", data={"whose": "theirs"}))
        asked(cluster, manifest, uid)

    asked = applying._ask_to_delete
    monkeypatch.setattr(applying, "_ask_to_delete", exchanged)
    with pytest.raises(ForeignObjectError):
        delete(cluster, thing(), RUN)
    assert server.names("configmaps") == ["one"]


def test_a_deletion_that_is_refused_is_told(server: HttpKubernetes, cluster: Cluster) -> None:
    apply(cluster, thing())
    server.refuses["DELETE one"] = (403, "webhook guard says no")
    started = time.monotonic()
    with pytest.raises(ClusterApiError, match="cannot delete ConfigMap one: webhook guard says no"):
        delete(cluster, thing(), RUN)
    assert time.monotonic() - started < 5
