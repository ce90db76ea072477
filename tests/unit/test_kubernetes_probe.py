"""Whether strangers of the cluster come in: the pod that tries, what its line says, and that nothing of it stays."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.kubernetes import probe
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.objects import RunObjects
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.spec import Workers
from unit.http_kubernetes import HttpKubernetes

RUN = "dh-aaaabbbbcc"
MARK = Mark(RUN, 1_800_000_000)
POD = MARK.name("probe")
CLOSED = {"doors": {"6379": "no answer", "8265": "refused", "10001": "no answer"}, "answers": [], "outside": "open"}
OPEN = {"doors": {"6379": "open", "8265": "open", "10001": "refused"}, "answers": ["401", "403"], "outside": "open"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(probe, "PATIENCE_S", 0.0)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        server.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RUN, "labels": MARK.labels("run")}})
        yield server


@pytest.fixture
def cluster(there: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


def objects(**section: Any) -> RunObjects:
    values = {"namespace": "lab", "image": "registry/ray:2", **section}
    return RunObjects(MARK, "trial", KubernetesSection.model_validate(values), Workers())


def ends(there: HttpKubernetes, told: object, phase: str = "Succeeded") -> None:
    """New pods have ended, and printed this."""
    there.new_pods = "Pending"
    there.logs[POD] = told if isinstance(told, str) else f"chatter\n{json.dumps(told)}\n"
    there.on_create = lambda thing: thing.update(status={"phase": phase})


def test_a_cluster_that_enforces_the_policy(there: HttpKubernetes, cluster: Cluster) -> None:
    ends(there, CLOSED)
    found = probe.run_probe(cluster, objects(), "10.244.0.9")
    assert (found.refuses, found.enforced) == (True, True)
    assert found.words.startswith("NetworkPolicy is enforced: a pod outside the run does not reach Ray (6379 no answer")
    assert found.told == ["6379 (no answer)", "8265 (refused)", "10001 (no answer)"]
    assert there.names("pods") == []
    assert json.dumps(found.to_dict())


def test_a_cluster_that_does_not_enforce_it_is_told_in_words(there: HttpKubernetes, cluster: Cluster) -> None:
    ends(there, OPEN)
    found = probe.run_probe(cluster, objects(), "10.244.0.9")
    assert (found.refuses, found.enforced) == (True, False)
    assert found.words == (
        "this cluster does not enforce NetworkPolicy: pods outside the run reach ports 6379, 8265; "
        "Ray refuses them without the token"
    )


@pytest.mark.parametrize("answers", [["200", "403"], ["401", "200"], ["500", "500"], []])
def test_a_ray_that_lets_strangers_in_is_an_error(there: HttpKubernetes, cluster: Cluster, answers: list[str]) -> None:
    ends(there, {**OPEN, "answers": answers})
    with pytest.raises(ClusterError, match="Ray does not refuse callers without the token: from a pod outside"):
        probe.run_probe(cluster, objects(), "10.244.0.9")
    assert there.names("pods") == []


def test_a_pod_that_reaches_nothing_proves_nothing() -> None:
    found = probe.judge({**CLOSED, "outside": "no answer"})
    assert (found.refuses, found.enforced) == (True, False)
    assert found.words.startswith("whether this cluster enforces NetworkPolicy cannot be told")


@pytest.mark.parametrize("told", [{}, {"doors": [], "answers": [], "outside": ""}, {**OPEN, "doors": {"x": "open"}}])
def test_a_line_without_sense_is_an_error(told: dict[str, Any]) -> None:
    with pytest.raises(ClusterError, match="says nothing that makes sense"):
        probe.judge(told)


def test_the_pod_is_one_of_the_runs_but_not_of_its_cluster(there: HttpKubernetes, cluster: Cluster) -> None:
    made: list[dict[str, Any]] = []
    ends(there, CLOSED)
    done = there.on_create
    assert done

    def create(thing: dict[str, Any]) -> None:
        made.append(json.loads(json.dumps(thing)))
        done(thing)

    there.on_create = create
    owner = there.get("configmaps", RUN)
    assert owner
    probe.run_probe(cluster, objects(image_pull_secrets=["own"]), "10.244.0.9")
    (pod,) = made
    assert pod["metadata"]["labels"] == MARK.labels("probe")
    assert [o["uid"] for o in pod["metadata"]["ownerReferences"]] == [owner["metadata"]["uid"]]
    spec = pod["spec"]
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert spec["activeDeadlineSeconds"] == 120
    assert "serviceAccountName" not in spec
    assert spec["imagePullSecrets"] == [{"name": "own"}]
    assert spec["securityContext"]["runAsNonRoot"]
    (container,) = spec["containers"]
    assert container["image"] == "registry/ray:2"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["volumes"] == container["volumeMounts"] == []


def test_the_interpreters_volume_is_mounted() -> None:
    given = {"volumes": [{"name": "env", "hostPath": {"path": "/srv/env"}}], "python": "/env/bin/python"}
    pod = probe.probe_pod(objects(**given, volume_mounts=[{"name": "env", "mountPath": "/env"}]), "u", "10.244.0.9")
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["env"]
    assert pod["spec"]["containers"][0]["volumeMounts"] == [{"name": "env", "mountPath": "/env"}]
    assert pod["spec"]["containers"][0]["command"][0] == "/env/bin/python"


def test_an_earlier_probe_goes_first_and_one_of_others_stays(there: HttpKubernetes, cluster: Cluster) -> None:
    there.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "labels": MARK.labels("probe")}})
    ends(there, CLOSED)
    assert probe.run_probe(cluster, objects(), "10.244.0.9").enforced
    there.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}})
    with pytest.raises(ClusterApiError, match="already exists"):
        probe.run_probe(cluster, objects(), "10.244.0.9")
    assert there.names("pods") == [POD]


def test_a_pod_that_does_not_come_is_told_with_the_reason(
    there: HttpKubernetes, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "DEADLINE_S", -14.9)
    there.new_pods = "Pending"
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    there.on_create = lambda thing: thing.update(status={"phase": "Pending", "conditions": [condition]})
    with pytest.raises(ClusterError, match=r"could not be tried from a pod outside: pod .* has no node: 0/2 nodes are"):
        probe.run_probe(cluster, objects(), "10.244.0.9")
    assert there.names("pods") == []
    ends(there, "", "Failed")
    with pytest.raises(ClusterError, match=f"pod {POD} is Failed"):
        probe.run_probe(cluster, objects(), "10.244.0.9")
    ends(there, "no JSON")
    with pytest.raises(ClusterError, match="printed nothing"):
        probe.run_probe(cluster, objects(), "10.244.0.9")


class _Dashboard(BaseHTTPRequestHandler):
    """As Ray's: nothing without the token."""

    def do_GET(self) -> None:
        self.send_response(403 if self.headers.get("Authorization") else 401)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def dashboard() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Dashboard) as web:
        thread = threading.Thread(target=lambda: web.serve_forever(0.02))
        thread.start()
        yield web.server_address[1]
        web.shutdown()
        thread.join()


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture
def knock() -> Callable[..., dict[str, Any]]:
    """Runs what the pod runs, on this machine."""

    def run(ports: list[int], board: int, outside: int) -> dict[str, Any]:
        words = ["127.0.0.1", json.dumps(ports), str(board), "1", "5"]
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(outside)}
        command = [sys.executable, "-IS", "-c", probe.KNOCK, *words]
        done = subprocess.run(command, env=env, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_the_pods_script_knocks_and_asks(knock: Callable[..., dict[str, Any]]) -> None:
    with dashboard() as board, ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        shut = free_port()
        assert knock([other, board, shut], board, other) == {
            "doors": {str(other): "open", str(board): "open", str(shut): "refused"},
            "answers": ["401", "403"],
            "outside": "open",
        }
    assert knock([shut], shut, shut) == {"doors": {str(shut): "refused"}, "answers": [], "outside": "refused"}
