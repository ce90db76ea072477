"""Looking at a namespace through the raw API: everything with the run's mark, nothing of others, and no silence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.kubernetes import discovery, inventory
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.discovery import Kind, discover
from dhctl.infra.kubernetes.inventory import waited_for
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.ledger import Entry, Ledger
from dhctl.infra.receipt import Check
from unit.http_kubernetes import HttpKubernetes, Resource

RUN, OTHER = "dh-aaaabbbbcc", "dh-ccccbbbbaa"
MARK = Mark(RUN, 1_800_000_000)
KINDS = {
    "pods": "v1 Pod",
    "configmaps": "v1 ConfigMap",
    "secrets": "v1 Secret",
    "services": "v1 Service",
    "serviceaccounts": "v1 ServiceAccount",
    "persistentvolumeclaims": "v1 PersistentVolumeClaim",
    "cronjobs.batch": "batch/v1 CronJob",
    "jobs.batch": "batch/v1 Job",
    "networkpolicies.networking.k8s.io": "networking.k8s.io/v1 NetworkPolicy",
    "roles.rbac.authorization.k8s.io": "rbac.authorization.k8s.io/v1 Role",
    "rolebindings.rbac.authorization.k8s.io": "rbac.authorization.k8s.io/v1 RoleBinding",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "PATIENCE_S", 0.0)
    monkeypatch.setattr(discovery, "PATIENCE_S", 0.0)


class Server(HttpKubernetes):
    """Tells its rules whatever is forbidden."""

    incomplete = False

    def _review(self, call: Any) -> dict[str, Any]:
        if call.resource.kind != "SelfSubjectRulesReview":
            return super()._review(call)
        return {"status": {"resourceRules": self.rules, "incomplete": self.incomplete}}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server().serving() as server:
        assert isinstance(server, Server)
        server.log_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def cluster(there: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


def add(there: HttpKubernetes, what: str, name: str, mark: Mark | None = MARK, **more: Any) -> dict[str, Any]:
    api, kind = what.split()
    labels = mark.labels("part") if mark else {}
    return there.add({"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels}, **more})


def fill(there: HttpKubernetes, mark: Mark, prefix: str) -> None:
    for what in KINDS.values():
        add(there, what, f"{prefix}-{what.split()[1].lower()}", mark)


def rows(cluster: Cluster, run: str = RUN, entries: Any = ()) -> dict[str, Check]:
    return {check.place: check for check in inventory.look(cluster, "lab", run, entries)}


def test_each_kind_is_found_and_told_with_the_command_that_removes_it(there: HttpKubernetes, cluster: Cluster) -> None:
    fill(there, MARK, "ours")
    fill(there, Mark(OTHER, 5), "others")
    found = rows(cluster)
    assert {place: len(check.found) for place, check in found.items() if check.found} == dict.fromkeys(KINDS, 1)
    assert found["pods"].found[0].remove_with == "kubectl delete pods ours-pod -n lab --context small"
    assert found["cronjobs.batch"].found[0].remove_with.startswith("kubectl delete cronjobs.batch ours-cronjob -n lab")
    assert all(RUN in check.looked_for for check in found.values())
    assert {check.state for check in found.values() if not check.found} == {"none"}


def test_a_run_of_which_nothing_is_there_is_clean(there: HttpKubernetes, cluster: Cluster) -> None:
    fill(there, Mark(OTHER, 5), "others")
    assert {check.state for check in rows(cluster).values()} == {"none"}
    assert set(KINDS) <= rows(cluster).keys()


def test_kinds_are_asked_of_the_cluster_not_assumed(there: HttpKubernetes, cluster: Cluster) -> None:
    there.resources.append(Resource("ray.io/v1", "rayclusters", "RayCluster"))
    there.resources.append(Resource("ray.io/v1alpha1", "rayclusters", "RayCluster"))
    there.resources.append(Resource("metrics.k8s.io/v1", "measures", "Measure", verbs=("get", "list")))
    add(there, "ray.io/v1 RayCluster", "mine")
    (left,) = rows(cluster)["rayclusters.ray.io"].found
    assert (left.kind, left.name) == ("raycluster", "mine")
    names = [kind.name for kind in discover(cluster).kinds]
    assert names.count("rayclusters.ray.io") == 1
    assert "measures.metrics.k8s.io" not in names
    assert "namespaces" not in names


def test_aggregated_discovery_is_taken_where_it_is_served(
    there: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resource(plural: str, kind: str, *verbs: str, scope: str = "Namespaced") -> dict[str, Any]:
        return {"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "verbs": list(verbs)}

    def group(name: str, *versions: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": name}, "versions": list(versions)}

    everything = ("list", "delete", "get")
    core = {"version": "v1", "freshness": "Current", "resources": [resource("pods", "Pod", *everything)]}
    core["resources"] += [
        resource("bindings", "Binding", "create"),
        resource("nodes", "Node", *everything, scope="Cluster"),
    ]
    apps = [
        {"version": v, "resources": [resource("deployments", "Deployment", *everything)]} for v in ("v1", "v1beta1")
    ]
    stale = {"version": "v1", "freshness": "Stale", "resources": []}
    told = {"/api": [group("", core)], "/apis": [group("apps", *apps), group("own.example.org", stale)]}

    def answer(path: str) -> dict[str, Any] | None:
        return {"kind": "APIGroupDiscoveryList", "items": told[path]} if path in told else None

    monkeypatch.setattr(there, "_discovery", answer)
    found = discover(cluster)
    assert found.kinds == (Kind("", "v1", "pods", "Pod"), Kind("apps", "v1", "deployments", "Deployment"))
    assert found.silent == ("own.example.org",)
    assert [call for call in there.asked if "/api" in call] == ["GET /api", "GET /apis"]


def test_an_older_list_that_does_not_come_makes_its_group_silent(there: HttpKubernetes, cluster: Cluster) -> None:
    there.resources.append(Resource("own.example.org/v1", "things", "Thing"))
    there.broken["GET /apis/own.example.org/v1"] = [503]
    assert discover(cluster).silent == ("own.example.org",)
    assert rows(cluster)["kinds of own.example.org"].state == "unknown"
    there.rules = [{"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}]
    found = rows(cluster)
    assert "kinds of own.example.org" not in found
    assert "all of own.example.org" in found["other kinds"].looked_for
    assert found["other kinds"].state == "none"


def test_events_that_only_mention_the_run_do_not_count(there: HttpKubernetes, cluster: Cluster) -> None:
    there.add_event(f"{RUN}-head", "FailedScheduling", "no room")
    assert rows(cluster)["events"].state == "none"


def test_what_cannot_be_listed_is_unknown_only_where_it_could_have_been_made(
    there: HttpKubernetes, cluster: Cluster
) -> None:
    there.resources.append(Resource("own.example.org/v1", "things", "Thing"))
    there.forbidden |= {("list", "things"), ("list", "jobs"), ("list", "endpoints")}
    there.rules = [
        {"verbs": ["get", "list"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["create"], "apiGroups": [""], "resources": ["endpoints"]},
        {"verbs": ["create"], "apiGroups": ["own.example.org"], "resources": ["things"], "resourceNames": ["one"]},
    ]
    found = rows(cluster)
    assert {place for place, check in found.items() if check.state == "unknown"} == {"jobs.batch", "endpoints"}
    assert "HTTP 403" in found["jobs.batch"].unknown
    assert found["other kinds"].looked_for.endswith("not to be seen, nor made, by you: things.own.example.org")
    assert len([call for call in there.asked if "selfsubjectrules" in call]) == 1
    assert not [call for call in there.asked if "selfsubjectaccess" in call]


def test_rules_that_are_not_whole_are_asked_kind_by_kind(there: Server, cluster: Cluster) -> None:
    for plural, kind in (("things", "Thing"), ("others", "Other")):
        there.resources.append(Resource("own.example.org/v1", plural, kind))
    there.forbidden |= {("list", "things"), ("list", "others"), ("create", "others")}
    there.rules, there.incomplete = [], True
    found = rows(cluster)
    assert found["things.own.example.org"].state == "unknown"
    assert "others.own.example.org" in found["other kinds"].looked_for


def test_an_api_in_trouble_is_unknown_in_its_own_words(there: HttpKubernetes, cluster: Cluster) -> None:
    there.broken["GET /api/v1/namespaces/lab/secrets"] = [500]
    found = rows(cluster)
    assert {place for place, check in found.items() if check.state == "unknown"} == {"secrets"}
    assert found["secrets"].unknown == "cannot list secrets: out of order (HTTP 500)"


def test_a_cluster_that_does_not_tell_its_kinds_is_one_unknown_row(there: HttpKubernetes, cluster: Cluster) -> None:
    there.broken["GET /apis"] = [503]
    (check,) = inventory.look(cluster, "lab", RUN)
    assert check.state == "unknown"
    assert "cannot ask which kinds of objects the cluster has" in check.unknown
    with pytest.raises(ClusterApiError):
        inventory.find(cluster, "lab", RUN)


def volume(there: HttpKubernetes, name: str, claim: str, uid: str = "", place: str = "lab", **spec: Any) -> None:
    body = {"claimRef": {"namespace": place, "name": claim, "uid": uid}, **spec}
    there.add({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body})


def test_volumes_are_known_by_their_claim(there: HttpKubernetes, cluster: Cluster) -> None:
    claim = add(there, "v1 PersistentVolumeClaim", "own-name")
    volume(there, "pv1", MARK.name("data"))
    volume(there, "pv2", "own-name", claim["metadata"]["uid"], persistentVolumeReclaimPolicy="Retain")
    volume(there, "pv3", f"{OTHER}-data")
    volume(there, "pv4", MARK.name("data"), place="elsewhere")
    volume(there, "pv5", "own-name", "another")
    volume(there, "pv6", f"{RUN}x-data")
    there.add({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv7"}, "spec": {}})
    check = rows(cluster)["persistentvolumes"]
    assert [left.name for left in check.found] == ["pv1", "pv2"]
    assert check.found[0].remove_with == "kubectl delete persistentvolumes pv1 --context small"
    assert "Retain" in check.found[1].reason
    there.forbidden.add(("list", "persistentvolumes"))
    found = rows(cluster)
    assert "persistentvolumes" not in found
    assert "persistentvolumes" in found["other kinds"].looked_for


def test_the_namespace_counts_when_it_carries_the_mark(there: HttpKubernetes, cluster: Cluster) -> None:
    labels = MARK.labels("namespace")
    there.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RUN, "labels": labels}})
    checks = {check.place: check for check in inventory.look(cluster, RUN, RUN)}
    assert [left.remove_with for left in checks["namespaces"].found] == [
        f"kubectl delete namespaces {RUN} --context small"
    ]
    assert "namespaces" not in rows(cluster)


def test_in_a_namespace_that_is_gone_nothing_is_asked(there: HttpKubernetes, cluster: Cluster) -> None:
    there.forbidden.add(("list", "pods"))
    checks = inventory.look(cluster, "gone", "gone")
    assert {check.state for check in checks} == {"none"}
    assert not [call for call in there.asked if "/namespaces/gone/" in call]


def test_finalizers_and_refusals_are_the_reason(there: HttpKubernetes, cluster: Cluster) -> None:
    held = add(there, "v1 Secret", "held")
    body = {"finalizers": ["example.org/keep"], "deletionTimestamp": "2026-11-24T18:00:00Z"}
    there.patch("secrets", "held", {"metadata": body})
    add(there, "v1 Secret", "refused")
    refused = there.get("secrets", "refused")
    assert refused
    told = {"kind": "secret", "id": refused["metadata"]["uid"], "name": "refused", "reason": "denied by a webhook"}
    found = rows(cluster, entries=[Entry(datetime.now(UTC), "resource.delete", "failed", told)])["secrets"].found
    assert {left.name: left.reason for left in found} == {
        "held": "held by the finalizer example.org/keep since its deletion was taken at 2026-11-24T18:00:00Z",
        "refused": "denied by a webhook",
    }
    assert held["metadata"]["uid"]


def test_the_content_of_secrets_is_not_asked_for(
    there: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}
    answer = there.answer

    def noting(method: str, target: str, body: Any, headers: dict[str, str]) -> Any:
        asked[target.partition("?")[0]] = headers.get("accept", "")
        return answer(method, target, body, headers)

    monkeypatch.setattr(there, "answer", noting)
    rows(cluster)
    assert asked["/api/v1/namespaces/lab/secrets"].startswith("application/json;as=PartialObjectMetadataList")


def test_what_is_served_under_two_names_counts_once(there: HttpKubernetes, cluster: Cluster) -> None:
    there.resources.append(Resource("old.example.org/v1", "pods", "Pod"))
    body = add(there, "v1 Pod", "p")
    there.add({**body, "apiVersion": "old.example.org/v1"})
    found = inventory.find(cluster, "lab", RUN)
    assert [owned.name for owned in found.owned] == ["p"]
    assert sum(len(check.found) for check in rows(cluster).values()) == 1


def test_what_was_waited_for_counts_within_one_down(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create()
    ledger.note("down", "intent", reason="asked")
    ledger.note("resource.delete", "failed", id="old", reason="a finalizer holds it")
    assert waited_for(ledger.entries()) == {"old"}
    ledger.note("down", "intent", reason="asked again")
    assert waited_for(ledger.entries()) == set()
    ledger.note("resource.delete", "done", id="gone")
    assert waited_for(ledger.entries()) == set()
