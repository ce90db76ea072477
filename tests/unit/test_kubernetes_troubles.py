"""Why a pod or worker did not come, in the words of scheduler, kubelet and the head's autoscaler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.kubernetes import inventory, troubles
from dhctl.infra.kubernetes.client import Cluster, connect
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.section import KubernetesSection
from unit.ws_kubernetes import WsKubernetes

RUN = "dh-aaaabbbbcc"
MARK = Mark(RUN)
NO_ROOM = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WsKubernetes]:
    monkeypatch.setattr(inventory, "PATIENCE_S", 0.0)
    with WsKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        server.commands = lambda words: (0, b"", b"")
        yield server


@pytest.fixture
def cluster(there: WsKubernetes) -> Cluster:
    return connect(KubernetesSection())


def add(there: WsKubernetes, part: str, mark: Mark = MARK) -> str:
    name = mark.name(part)
    limits = {"resources": {"limits": {"memory": "2147483648"}}}
    there.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": mark.pod_labels(part)},
            "spec": {"containers": [{"name": "ray", "image": "registry/ray:2", **limits}]},
        }
    )
    return name


def waits(there: WsKubernetes, name: str, reason: str, message: str = "", **more: Any) -> None:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"name": "ray", "image": "registry/ray:2", "state": state, **more}
    there.patch("pods", name, {"status": {"phase": "Pending", "containerStatuses": [container]}})


def told(cluster: Cluster) -> list[str]:
    return troubles.of_pods(cluster, "lab", RUN)


def test_a_pod_without_a_node_is_told_with_the_schedulers_reason(there: WsKubernetes, cluster: Cluster) -> None:
    there.pod_pends(add(there, "w-1"), NO_ROOM)
    there.pod_pends(add(there, "w-2", Mark("dh-ddddeeeeff")), NO_ROOM)
    there.pod_runs(add(there, HEAD))
    assert told(cluster) == [f"pod {RUN}-w-1 has no node: {NO_ROOM}"]


def test_an_image_that_does_not_come(there: WsKubernetes, cluster: Cluster) -> None:
    waits(there, add(there, HEAD), "ImagePullBackOff", "Back-off pulling image: not found")
    assert told(cluster) == [f"pod {RUN}-head cannot get the image registry/ray:2: Back-off pulling image: not found"]


def test_a_container_that_cannot_start(there: WsKubernetes, cluster: Cluster) -> None:
    waits(there, add(there, HEAD), "CreateContainerConfigError", 'secret "x" not found')
    assert told(cluster) == [f'pod {RUN}-head cannot start: secret "x" not found']


def test_a_crash_loop_is_told_with_the_last_lines(there: WsKubernetes, cluster: Cluster) -> None:
    name = add(there, HEAD)
    there.logs[name] = "Traceback\n\nModuleNotFoundError: No module named 'ray'\n"
    last = {"terminated": {"reason": "Error", "exitCode": 1}}
    waits(there, name, "CrashLoopBackOff", lastState=last, restartCount=3)
    assert told(cluster) == [
        f"pod {name} crashed again and again (exit code 1): Traceback | ModuleNotFoundError: No module named 'ray'"
    ]


def test_killed_for_memory_evicted_failed(there: WsKubernetes, cluster: Cluster) -> None:
    there.pod_fails(add(there, "w-1"), "OOMKilled", 137)
    there.pod_fails(add(there, "w-2"), "Evicted", message="The node was low on resource: memory.")
    there.pod_fails(add(there, "w-3"), "Error", 3)
    assert told(cluster) == [
        f"pod {RUN}-w-1 was killed because it needed more than its 2 GiB of memory",
        f"pod {RUN}-w-2 was evicted: The node was low on resource: memory.",
        f"pod {RUN}-w-3 crashed (exit code 3)",
    ]


def test_warnings_about_the_runs_objects_are_told_the_newest_of_each_reason(
    there: WsKubernetes, cluster: Cluster
) -> None:
    for words in ("older", "exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3"):
        there.add_event(f"{RUN}-lease-123", "FailedCreate", words, kind="Job")
    there.add_event(f"{RUN}-head", "Unhealthy", "Readiness probe failed")
    there.add_event("theirs", "FailedCreate", "exceeded quota")
    assert told(cluster) == [
        f"job {RUN}-lease-123: exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3"
    ]


def test_many_pods_have_few_sentences(there: WsKubernetes, cluster: Cluster) -> None:
    for number in range(50):
        there.pod_pends(add(there, f"w-{number}"), NO_ROOM)
    assert len(told(cluster)) == troubles.NAMED + 1
    assert told(cluster)[-1] == "44 more of the kind"


def test_an_api_that_does_not_answer_explains_nothing(there: WsKubernetes, cluster: Cluster) -> None:
    there.pod_pends(add(there, HEAD), NO_ROOM)
    there.broken["GET /api/v1/namespaces/lab"] = [503]
    assert troubles.of_run(cluster, "lab", RUN) == []


def test_one_that_others_take_away_is_told(there: WsKubernetes, cluster: Cluster) -> None:
    name = add(there, WORKER)
    told_why = {"reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}
    condition = {"type": "DisruptionTarget", "status": "True", **told_why}
    there.patch("pods", name, {"status": {"conditions": [condition]}})
    assert told(cluster) == []
    there.lingering.add(name)
    cluster.call("DELETE", f"/api/v1/namespaces/lab/pods/{name}", {})
    why = "Taint manager: deleting due to NoExecute taint (DeletionByTaintManager)"
    assert told(cluster) == [f"pod {name} is taken away: {why}"]


def test_one_whose_end_nobody_confirms_is_told_with_its_node(
    there: WsKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add(there, WORKER)
    there.patch("pods", name, {"spec": {"nodeName": "n1"}})
    there.lingering.add(name)
    cluster.call("DELETE", f"/api/v1/namespaces/lab/pods/{name}", {})
    assert told(cluster) == [], "it may still end"
    monkeypatch.setattr(troubles, "LATE_S", -3600.0)
    assert told(cluster) == [f"pod {name} does not end: its end is not confirmed on node n1; is the node alive?"]


def test_workers_that_left_unasked_are_told(there: WsKubernetes, cluster: Cluster) -> None:
    add(there, HEAD)
    events = [
        {"kind": "left", "node": "w-1", "reason": "the cluster does not have it any more"},
        {"kind": "left", "node": "w-2", "reason": "released"},
    ]
    there.commands = lambda words: (0, "\n".join(map(json.dumps, events)).encode(), b"")
    assert troubles.of_run(cluster, "lab", RUN) == ["worker w-1 is gone: the cluster does not have it any more"]


def test_the_heads_events_are_told_each_once(there: WsKubernetes, cluster: Cluster) -> None:
    add(there, HEAD)
    events = [
        {"kind": "launched", "node": "w-1"},
        {"kind": "failed", "node": "w-1", "reason": "worker w-1 ended: OOMKilled"},
        {"kind": "refused", "reason": "exceeded quota: pods"},
        {"kind": "refused", "reason": "exceeded quota: pods"},
        {"kind": "left", "node": "w-1", "reason": "released"},
    ]
    lines = "\n".join([*map(json.dumps, events), "[1]", '{"kind": "torn'])
    there.commands = lambda words: (0, lines.encode(), b"")
    assert troubles.of_run(cluster, "lab", RUN) == ["worker w-1 ended: OOMKilled", "exceeded quota: pods"]
    assert there.executed == [["tail", "-n", "200", "/var/lib/dhctl/log/events.jsonl"]]
    there.drop("pods", MARK.name(HEAD))
    assert troubles.of_run(cluster, "lab", RUN) == []
