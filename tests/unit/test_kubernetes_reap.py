"""Ending runs from a cluster's own lists: by mark and expiry alone, never a run that is not past its lease."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhctl.infra.errors import UnknownRunError
from dhctl.infra.events import Event, Warned
from dhctl.infra.kubernetes import discovery, inventory, reap, sweep
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.section import KubernetesSection
from unit.http_kubernetes import HttpKubernetes

OVER, LIVING, UNTOLD, OWN = "dh-aaaabbbbcc", "dh-ccccbbbbaa", "dh-bbbbaaaacc", "dh-ddddaaaabb"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inventory, discovery, sweep):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "RUN_OBJECT_S", 0.2)
    monkeypatch.setattr(sweep, "GONE_S", 0.1)
    monkeypatch.setattr(sweep, "DEADLINE_S", 0.5)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    """In `lab` a run past its lease, one that lives, one that tells no expiry; one past it in its own namespace."""
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        for run, expires_at in ((OVER, time.time() - 60), (LIVING, time.time() + 3600), (UNTOLD, 0)):
            mark = Mark(run, int(expires_at))
            for kind, name in (("ConfigMap", run), ("Pod", mark.name("head"))):
                metadata = {"name": name, "labels": mark.labels("part")}
                server.add({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        mark = Mark(OWN, int(time.time()) - 5)
        metadata = {"name": OWN, "labels": mark.labels("namespace")}
        server.add({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        metadata = {"name": mark.name("head"), "namespace": OWN, "labels": mark.labels("head")}
        server.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
        yield server


@pytest.fixture
def cluster(there: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


def test_runs_of_all_namespaces_are_told_with_all_that_they_have(cluster: Cluster) -> None:
    found = {run.run_id: run for run in reap.marked_runs(cluster)}
    assert found.keys() == {OVER, LIVING, UNTOLD, OWN}
    assert sorted(owned.kind for owned in found[OVER].owned) == ["configmap", "pod"]
    assert sorted(owned.kind for owned in found[OWN].owned) == ["namespace", "pod"]
    assert found[OVER].expires_at > 0
    assert found[UNTOLD].expires_at == 0
    assert not found[OVER].clean


def test_one_namespace_alone(cluster: Cluster) -> None:
    assert {run.run_id for run in reap.marked_runs(cluster, "lab")} == {OVER, LIVING, UNTOLD}
    assert {run.run_id for run in reap.marked_runs(cluster, OWN)} == {OWN}
    assert reap.marked_runs(cluster, "default") == []


class Tenants(HttpKubernetes):
    """Nobody may list across namespaces."""

    def _require_right(self, call: object) -> None:
        super()._require_right(call)  # type: ignore[arg-type]
        if not call.namespace and not call.name and call.resource.plural != "namespaces":  # type: ignore[attr-defined]
            self.forbidden.add(("list", call.resource.plural))  # type: ignore[attr-defined]
            try:
                super()._require_right(call)  # type: ignore[arg-type]
            finally:
                self.forbidden.discard(("list", call.resource.plural))  # type: ignore[attr-defined]


def test_a_tenant_sees_namespace_by_namespace(
    there: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(there, "__class__", Tenants)
    assert {run.run_id for run in reap.marked_runs(cluster)} == {OVER, LIVING, UNTOLD, OWN}
    there.forbidden.add(("list", "namespaces"))
    assert {run.run_id for run in reap.marked_runs(cluster)} == {OVER, LIVING, UNTOLD}


def test_only_runs_past_their_lease_are_meant(cluster: Cluster) -> None:
    assert {run.run_id for run in reap.expired(cluster)} == {OVER, OWN}
    assert {run.run_id for run in reap.expired(cluster, namespace="lab")} == {OVER}


def test_one_run_may_be_named_whatever_its_lease(cluster: Cluster) -> None:
    assert [run.run_id for run in reap.expired(cluster, LIVING)] == [LIVING]
    assert [run.run_id for run in reap.expired(cluster, UNTOLD)] == [UNTOLD]
    with pytest.raises(UnknownRunError, match="no run matches 'dh-zzzzzzzzzz'"):
        reap.expired(cluster, "dh-zzzzzzzzzz")


def test_the_latest_expiry_counts(there: HttpKubernetes, cluster: Cluster) -> None:
    later = Mark(OVER, int(time.time()) + 3600)
    metadata = {"name": "late", "labels": later.labels("worker")}
    there.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    assert {run.run_id for run in reap.expired(cluster)} == {OWN}


def test_an_ended_run_is_looked_for_again(there: HttpKubernetes, cluster: Cluster, told: list[Event]) -> None:
    for run in reap.expired(cluster):
        ended = reap.end(cluster, run, told.append)
        assert ended.clean
        assert (ended.run_id, ended.owned) == (run.run_id, run.owned)
    assert there.names("pods") == [Mark(LIVING).name("head"), Mark(UNTOLD).name("head")]
    assert OWN not in there.names("namespaces")
    assert "lab" in there.names("namespaces")
    assert told


def test_an_api_in_trouble_leaves_a_run_that_is_not_clean(
    there: HttpKubernetes, cluster: Cluster, told: list[Event]
) -> None:
    (run,) = reap.expired(cluster, namespace="lab")
    there.broken["GET /api/v1/namespaces/lab/secrets"] = [500]
    ended = reap.end(cluster, run, told.append)
    assert not ended.clean
    assert ended.to_dict()["unknown"] == {"secrets": "cannot list secrets: out of order (HTTP 500)"}
    assert any(isinstance(event, Warned) for event in told)
    with pytest.raises(ClusterApiError, match="cannot list secrets"):
        reap.expired(cluster, namespace="lab")


def test_what_is_left_is_told_for_people_and_as_json(
    there: HttpKubernetes, cluster: Cluster, told: list[Event]
) -> None:
    (run,) = reap.expired(cluster, namespace="lab")
    there.refuses[f"DELETE {OVER}-head"] = (409, "no, says a webhook")
    body = reap.end(cluster, run, told.append).to_dict()
    assert {key: body[key] for key in ("run", "ended", "clean", "unknown")} == {
        "run": OVER,
        "ended": True,
        "clean": False,
        "unknown": {},
    }
    assert body["lease_ends"].endswith("+00:00")
    (left,) = body["left"]
    assert left["remove_with"] == f"kubectl delete pods {OVER}-head -n lab --context small"
    assert left["reason"] == "no, says a webhook (HTTP 409)"
