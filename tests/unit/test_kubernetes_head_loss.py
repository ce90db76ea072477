"""A head's pod that is lost, and what goes before the next one is made: pods of head and workers, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, Warned
from dhctl.infra.home import Home
from dhctl.infra.kubernetes import discovery, head_loss, inventory, sweep
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.head_loss import clear_head, lost_head
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.record import RunRecord
from unit.fakes import kubernetes_record
from unit.ws_kubernetes import WsKubernetes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inventory, discovery, sweep):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(head_loss, "GONE_S", 0.2)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WsKubernetes]:
    with WsKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def cluster(there: WsKubernetes) -> Cluster:
    return connect(KubernetesSection())


@pytest.fixture
def run(home: Home) -> RunRecord:
    return kubernetes_record(home)


@pytest.fixture
def mark(run: RunRecord) -> Mark:
    return Mark(run.run_id, 1_800_000_000)


def add(there: WsKubernetes, name: str, labels: dict[str, str], **more: Any) -> None:
    there.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {}, **more})


def test_a_head_that_is_there_is_not_lost(there: WsKubernetes, cluster: Cluster, run: RunRecord, mark: Mark) -> None:
    add(there, mark.name(HEAD), mark.pod_labels(HEAD), status={"phase": "Running"})
    assert lost_head(cluster, run) == ""


def test_a_head_that_is_gone_or_has_ended_is_lost(
    there: WsKubernetes, cluster: Cluster, run: RunRecord, mark: Mark
) -> None:
    name = mark.name(HEAD)
    assert lost_head(cluster, run) == f"pod {name} is gone"
    add(there, name, mark.pod_labels(HEAD), status={"phase": "Failed", "reason": "Evicted", "message": "disk"})
    assert lost_head(cluster, run) == f"pod {name} ended: Evicted: disk"


def test_kuberays_operator_makes_the_next_head(cluster: Cluster, home: Home) -> None:
    theirs = kubernetes_record(home, "kuberay")
    assert lost_head(cluster, theirs) == ""


def test_pods_of_head_and_workers_go_and_nothing_else(
    there: WsKubernetes, cluster: Cluster, run: RunRecord, mark: Mark, told: list[Event]
) -> None:
    add(there, mark.name(HEAD), mark.pod_labels(HEAD))
    for worker in ("w-1", "w-2"):
        add(there, mark.name(worker), mark.pod_labels(WORKER))
    add(there, mark.name("lease-1"), mark.labels("lease"))
    add(there, "foreign", Mark("dh-ccccbbbbaa").pod_labels(WORKER))
    for _ in range(2):
        clear_head(cluster, run, told.append)
    assert sorted(there.names("pods")) == sorted(["foreign", mark.name("lease-1")])
    assert len(there.deleted) == 3
    assert all(e.phase in ("intent", "done") for e in run.ledger.entries() if e.act == "resource.delete")


@pytest.mark.parametrize("part", [HEAD, "w-1"])
def test_a_head_that_does_not_go_keeps_the_next_one_away_and_a_worker_does_not(
    there: WsKubernetes, cluster: Cluster, run: RunRecord, mark: Mark, told: list[Event], part: str
) -> None:
    labels = mark.pod_labels(HEAD if part == HEAD else WORKER)
    held = {"name": mark.name(part), "labels": labels, "finalizers": ["example.org/held"]}
    there.add({"apiVersion": "v1", "kind": "Pod", "metadata": held, "spec": {}})
    if part == HEAD:
        with pytest.raises(ClusterError, match="of the lost head does not go"):
            clear_head(cluster, run, told.append)
    else:
        clear_head(cluster, run, told.append)
        assert any(isinstance(event, Warned) and "`down` will look again" in event.text for event in told)


def test_pods_that_cannot_be_listed_are_told(there: WsKubernetes, cluster: Cluster, run: RunRecord) -> None:
    there.broken["GET /api/v1/namespaces/lab/pods"] = [403]
    with pytest.raises(ClusterApiError, match="cannot list pods"):
        clear_head(cluster, run, lambda event: None)
