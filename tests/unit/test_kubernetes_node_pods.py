"""Worker pods through the API: what is read of them, and the calls that the official client makes of ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from kubernetes import client

from dhctl.infra.kubernetes.node.pods import ClusterPods, Pod, PodApiError, pod_of

PODS = "/api/v1/namespaces/lab/pods"


def body(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    made = {"uid": "1-2", "name": "w", "creationTimestamp": "2026-11-24T17:00:00Z", **metadata}
    return {"metadata": made, "status": status}


def state(**told: Any) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"name": "ray", "state": told}]}


def test_a_pod_that_runs() -> None:
    running = state(running={"startedAt": "2026-11-24T17:00:09Z"}) | {"phase": "Running", "podIP": "10.244.1.7"}
    labels = {"dhctl/node": "dh-aaaabbbbcc-w-1", "dhctl/run": "dh-aaaabbbbcc"}
    pod = pod_of(body(running, labels=labels, annotations={"dhctl/launch": "request-1"}))
    assert (pod.name, pod.uid, pod.ip, pod.up, pod.launch) == (
        labels["dhctl/node"],
        "1-2",
        "10.244.1.7",
        True,
        "request-1",
    )
    assert pod.started_at - pod.created_at == 9
    assert (pod.ended, pod.ending, pod.reason, pod.waiting, pod.unschedulable) == (False, False, "", "", "")
    assert pod_of(body(running, deletionTimestamp="2026-11-24T17:01:00Z")).ending


def test_a_new_pod_tells_nothing_yet() -> None:
    assert pod_of(body({})) == Pod("1-2", "w", "Pending", 1795539600.0)
    assert pod_of(body(state(waiting={"reason": "ContainerCreating"}))).waiting == ""


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            state(terminated={"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-11-24T17:01:00Z"}),
            "OOMKilled: it used more memory than its limit",
        ),
        (state(terminated={"reason": "Error", "exitCode": 2}), "Error (exit code 2)"),
        (
            state(terminated={"reason": "ContainerCannotRun", "exitCode": 128, "message": "exec: no\nsuch file"}),
            "ContainerCannotRun: exec: no such file (exit code 128)",
        ),
        (
            state(terminated={"reason": "Error", "exitCode": 137})
            | {"reason": "Evicted", "message": "The node was low on resource: memory."},
            "Evicted: The node was low on resource: memory.",
        ),
        ({"reason": "NodeShutdown"}, "NodeShutdown"),
        (state(terminated={"reason": "Completed", "exitCode": 0}), ""),
    ],
)
def test_why_a_pod_ended(status: dict[str, Any], reason: str) -> None:
    assert pod_of(body(status)).reason == reason


def test_why_a_pod_is_taken_away() -> None:
    told = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    status = {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True", **told}]}
    going = pod_of(body(status, deletionTimestamp="2026-11-24T17:01:00Z"))
    assert going.taken == "EvictionByEvictionAPI: Eviction API: evicting"
    assert pod_of(body(status)).taken == "", "it stays"
    assert pod_of(body({"phase": "Running"}, deletionTimestamp="2026-11-24T17:01:00Z")).taken == "", "nobody says why"


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError"])
def test_why_a_container_cannot_start(reason: str) -> None:
    assert pod_of(body(state(waiting={"reason": reason, "message": "not found"}))).waiting == f"{reason}: not found"


def test_the_schedulers_own_words() -> None:
    conditions = [
        {"type": "Ready", "status": "False", "message": "no"},
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available."},
    ]
    assert pod_of(body({"conditions": conditions})).unschedulable == "0/2 nodes are available."
    gated = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    assert pod_of(body({"conditions": gated})).unschedulable == "SchedulingGated"
    assert pod_of(body({"conditions": [{"type": "PodScheduled", "status": "True"}]})).unschedulable == ""


class HttpPods:
    """Stands in for the API server: notes each call, and gives the answer that the test left for its method."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        calls, answers = self.calls, self.answers

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                calls.append((self.command, self.path, json.loads(sent) if sent else None))
                status, told = answers[self.command]
                content = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def do_DELETE(self) -> None:
                self.answer()

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def server() -> Iterator[HttpPods]:
    made = HttpPods()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


@pytest.fixture
def pods(server: HttpPods) -> Iterator[ClusterPods]:
    settings = client.Configuration()
    settings.host = f"http://127.0.0.1:{server.server.server_address[1]}"
    settings.retries = False
    with client.ApiClient(settings) as api:
        yield ClusterPods(client.CoreV1Api(api), "lab")
        api.rest_client.pool_manager.clear()


def failure(status: int, message: str) -> tuple[int, Any]:
    return status, {"kind": "Status", "message": message, "code": status}


def test_pods_are_listed_by_their_labels(pods: ClusterPods, server: HttpPods) -> None:
    server.answers["GET"] = (200, {"items": [body({"phase": "Running"})]})
    assert [pod.name for pod in pods.pods("dhctl/run=dh-1,dhctl/role=worker")] == ["w"]
    assert unquote(server.calls[0][1]) == f"{PODS}?labelSelector=dhctl/run=dh-1,dhctl/role=worker"


def test_a_pod_is_made_as_it_is_given(pods: ClusterPods, server: HttpPods) -> None:
    server.answers["POST"] = (201, body({}))
    asked = {"metadata": {"name": "w"}, "spec": {"containers": [], "activeDeadlineSeconds": 5}}
    assert pods.create(asked).uid == "1-2"
    assert server.calls == [("POST", PODS, asked)]


def test_a_deletion_is_soon_and_of_that_very_pod(pods: ClusterPods, server: HttpPods) -> None:
    server.answers["DELETE"] = (200, {"kind": "Status"})
    assert pods.delete(Pod("1-2", "w", "Running", 0.0)) is None
    assert server.calls == [("DELETE", f"{PODS}/w", {"gracePeriodSeconds": 2, "preconditions": {"uid": "1-2"}})]
    for gone in (404, 409):
        server.answers["DELETE"] = failure(gone, "not there")
        assert pods.delete(Pod("1-2", "w", "Running", 0.0)) is None
    server.answers["DELETE"] = failure(500, "etcd is away")
    with pytest.raises(PodApiError, match=r"^etcd is away$"):
        pods.delete(Pod("1-2", "w", "Running", 0.0))


def test_the_answer_to_a_deletion_tells_who_asked_for_it_before(pods: ClusterPods, server: HttpPods) -> None:
    told = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    status = {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True", **told}]}
    server.answers["DELETE"] = (200, {"kind": "Pod", **body(status, deletionTimestamp="2026-11-24T17:01:00Z")})
    there = pods.delete(Pod("1-2", "w", "Running", 0.0))
    assert there is not None
    assert there.taken == "EvictionByEvictionAPI: Eviction API: evicting"


def test_owner_and_promise_are_read(pods: ClusterPods, server: HttpPods) -> None:
    server.answers["GET"] = (200, {"metadata": {"ownerReferences": [{"uid": "9"}]}})
    assert pods.owners("head") == [{"uid": "9"}]
    server.answers["GET"] = (200, {"metadata": {}})
    assert pods.owners("head") == []
    server.answers["GET"] = (200, {"items": [{"reason": "FailedScheduling"}, {"reason": "TriggeredScaleUp"}]})
    assert pods.promised(Pod("1-2", "w", "Pending", 0.0))
    assert unquote(server.calls[-1][1]) == "/api/v1/namespaces/lab/events?fieldSelector=involvedObject.uid=1-2"


def test_a_refusal_is_told_in_the_servers_words(pods: ClusterPods, server: HttpPods) -> None:
    server.answers["POST"] = failure(403, 'pods "w" is forbidden: exceeded quota: lab, requested: pods=1')
    with pytest.raises(PodApiError) as told:
        pods.create({})
    assert (told.value.status, told.value.over_quota) == (403, True)
    assert str(told.value) == 'pods "w" is forbidden: exceeded quota: lab, requested: pods=1'
    assert not PodApiError(403, "is being terminated").over_quota


def test_no_answer_has_no_status(pods: ClusterPods, server: HttpPods) -> None:
    server.server.server_close()
    with pytest.raises(PodApiError) as told:
        pods.pods("a=b")
    assert told.value.status == 0
