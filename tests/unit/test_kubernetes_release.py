"""Before the stack goes: the autoscaler stops, its rights and the workers go; logs and the head's journal are kept."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, ignore
from dhctl.infra.home import Home
from dhctl.infra.kubernetes import discovery, inventory, release, sweep
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.pod_exec import PodEndpoint, UnreachablePodError, main_container, run_in_pod
from dhctl.infra.kubernetes.pod_files import fetch, save_logs
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.ledger import Ledger, last
from dhctl.infra.record import RunRecord
from unit.fakes import kubernetes_record
from unit.ws_kubernetes import Ended, WsKubernetes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inventory, discovery, sweep):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "GONE_S", 0.2)
    monkeypatch.setattr(release, "HEAD_GONE_S", 0.2)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WsKubernetes]:
    with WsKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def cluster(there: WsKubernetes) -> Cluster:
    return connect(KubernetesSection())


@pytest.fixture
def record(home: Home) -> RunRecord:
    return kubernetes_record(home)


@pytest.fixture
def mark(record: RunRecord) -> Mark:
    return Mark(record.run_id, 1_800_000_000)


@pytest.fixture
def head(there: WsKubernetes, cluster: Cluster, mark: Mark) -> PodEndpoint:
    fill(there, mark)
    return PodEndpoint(cluster, "lab", mark.name(HEAD), sys.executable)


def add(there: WsKubernetes, api: str, kind: str, name: str, labels: dict[str, str], **more: Any) -> None:
    there.add({"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels}, **more})


def fill(there: WsKubernetes, mark: Mark) -> None:
    spec = {"spec": {"containers": [{"name": "mesh"}, {"name": "ray"}]}}
    add(there, "v1", "Pod", mark.name(HEAD), mark.pod_labels(HEAD), **spec)
    for worker in ("w-1", "w-2"):
        add(there, "v1", "Pod", mark.name(worker), mark.pod_labels(WORKER), **spec)
    add(there, "v1", "Pod", "foreign", Mark("dh-ccccbbbbaa").pod_labels(WORKER), **spec)
    add(there, "v1", "ConfigMap", mark.run_id, mark.labels("run"))
    for part in (HEAD, "lease"):
        add(there, "rbac.authorization.k8s.io/v1", "RoleBinding", mark.name(part), mark.labels("access"))


def test_the_autoscaler_is_stopped_then_its_rights_and_workers_go(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, mark: Mark, record: RunRecord, told: list[Event]
) -> None:
    there.commands = lambda words: (0, b"", b"")
    release.release_nodes(cluster, record, told.append)
    (words,) = there.executed
    assert words[:2] == ["sh", "-c"]
    assert words[2].endswith("exec python -m dhctl.infra.node.stop")
    assert there.deleted[0] == mark.name(HEAD)
    assert there.names("rolebindings") == [mark.name("lease")]
    assert there.names("pods") == ["foreign"]
    assert there.names("configmaps") == [record.run_id]
    graces = {name: options.get("gracePeriodSeconds") for name, options in there.delete_options}
    assert graces == {mark.name("w-1"): 1, mark.name("w-2"): 1, mark.name(HEAD): None}
    assert last(record.ledger.entries(), "autoscaler.stop", "done")


def test_balancers_go_before_what_is_under_them(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, mark: Mark, record: RunRecord, told: list[Event]
) -> None:
    record.ledger.done("autoscaler.stop")
    for name, kind in (("balancer", "LoadBalancer"), ("inner", "ClusterIP")):
        add(there, "v1", "Service", name, mark.labels("network"), spec={"type": kind})
    release.release_nodes(cluster, record, told.append)
    assert there.names("services") == ["inner"]


def test_what_was_stopped_is_not_stopped_again(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, told: list[Event]
) -> None:
    record.ledger.done("autoscaler.stop")
    release.release_nodes(cluster, record, told.append)
    release.release_nodes(cluster, record, told.append)
    assert there.executed == []
    assert there.names("pods") == ["foreign"]


def test_a_head_that_took_the_place_of_another_is_stopped_too(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, told: list[Event]
) -> None:
    record.ledger.done("autoscaler.stop")
    record.ledger.note("stack.up", "done")
    there.commands = lambda words: (0, b"", b"")
    release.release_nodes(cluster, record, told.append)
    assert len(there.executed) == 1


@pytest.mark.parametrize("trouble", ["fails", "refused", "gone"])
def test_a_head_that_cannot_be_reached_keeps_no_worker_alive(
    there: WsKubernetes,
    cluster: Cluster,
    head: PodEndpoint,
    mark: Mark,
    record: RunRecord,
    trouble: str,
) -> None:
    there.commands = lambda words: (1, b"", b"TimeoutError: the autoscaler (pid 7) does not die")
    if trouble == "refused":
        there.refuses_websockets += [500]
    elif trouble == "gone":
        there.drop("pods", head.name)
    release.release_nodes(cluster, record, ignore)
    assert there.names("pods") == ["foreign"], "a head in which it was not stopped goes too"
    assert there.names("rolebindings") == [mark.name("lease")]
    note = last(record.ledger.entries(), "autoscaler.stop", "note")
    assert bool(note and note.detail["unreachable"]) == (trouble != "gone")


def test_a_tenant_without_rights_to_bindings_still_ends_the_workers(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, told: list[Event]
) -> None:
    there.commands = lambda words: (0, b"", b"")
    there.forbidden.add(("list", "rolebindings"))
    release.release_nodes(cluster, record, told.append)
    assert there.names("pods") == ["foreign"]


def test_bindings_that_cannot_be_listed_are_an_error_after_the_workers_end(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, told: list[Event]
) -> None:
    there.commands = lambda words: (0, b"", b"")
    there.broken["GET /apis/rbac.authorization.k8s.io/v1/namespaces/lab/rolebindings"] = [500]
    with pytest.raises(ClusterApiError, match=r"cannot list rolebindings.*out of order"):
        release.release_nodes(cluster, record, told.append)
    assert there.names("pods") == ["foreign"]


def head_folders(tmp_path: Path) -> list[str]:
    logs, ray = tmp_path / "pod" / "log", tmp_path / "pod" / "ray"
    for folder in (logs, ray / "old"):
        folder.mkdir(parents=True)
    journal = Ledger(logs / "ledger.jsonl")
    journal.create()
    journal.done("node.start", node="w-1")
    (logs / "agent.log").write_text("agent")
    (ray / "gcs_server.out").write_bytes(os.urandom(300_000))
    (ray / "old" / "gcs_server.out").write_text("old")
    (ray / "passwd").symlink_to("/etc/passwd")
    return [str(logs), str(ray), str(tmp_path / "none")]


def test_logs_and_journal_come_into_the_record(
    there: WsKubernetes,
    cluster: Cluster,
    head: PodEndpoint,
    record: RunRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(release, "LOG_FOLDERS", head_folders(tmp_path))
    monkeypatch.setattr(release, "stop_autoscaler", lambda endpoint: None)
    monkeypatch.setattr(release, "head_of", lambda *_: head)
    there.pod_runs(head.name)
    there.logs[head.name] = "started\n"
    for _ in range(2):
        release.collect(cluster, record)
    assert (record.logs_dir / "agent.log").read_text() == "agent"
    assert (record.logs_dir / "old" / "gcs_server.out").read_text() == "old"
    assert (record.logs_dir / "gcs_server.out").stat().st_size == 300_000
    assert not (record.logs_dir / "passwd").exists()
    assert (record.logs_dir / "pods" / f"{head.name}.ray.log").read_text() == "started\n"
    adopted = [e for e in record.ledger.entries() if e.act == "node.start"]
    assert [e.detail["by"] for e in adopted] == ["head"]


def test_what_pods_printed_is_kept_also_where_the_head_cannot_be_reached(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, mark: Mark, record: RunRecord
) -> None:
    there.pod_runs(mark.name("w-1"))
    there.logs[mark.name("w-1")] = "worker\n"
    there.refuses_websockets += [500]
    with pytest.raises(UnreachablePodError, match=r"cannot run a command in pod .*-head: out of order \(HTTP 500\)"):
        release.collect(cluster, record)
    assert (record.logs_dir / "pods" / f"{mark.name('w-1')}.ray.log").read_text() == "worker\n"


def test_a_head_that_is_gone_is_no_trouble(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord
) -> None:
    there.drop("pods", head.name)
    release.collect(cluster, record)
    assert there.executed == []
    assert not record.ledger.entries()[1:]


def test_an_autoscaler_that_does_not_stop_keeps_no_log_away(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    there.commands = lambda words: (1, b"", b"does not die")
    monkeypatch.setattr(release, "fetch", lambda pod, *_: fetched.append(pod.name))
    release.collect(cluster, record)
    assert fetched == [head.name]
    assert last(record.ledger.entries(), "autoscaler.stop", "done") is None


def test_logs_before_a_restart_are_kept_too(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, record: RunRecord, tmp_path: Path
) -> None:
    there.logs[head.name] = "text"
    again = {"name": "ray", "state": {"running": {}}, "restartCount": 1}
    pending = {"name": "mesh", "state": {"waiting": {"reason": "ContainerCreating"}}}
    there.patch("pods", head.name, {"status": {"containerStatuses": [again, pending]}})
    assert save_logs(cluster, "lab", record.run_id, tmp_path / "logs") == 2
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == [f"{head.name}.ray.log", f"{head.name}.ray.previous.log"]


def test_files_that_are_too_large_are_named(head: PodEndpoint, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "large").write_bytes(bytes(200_000))
    (folder / "small").write_bytes(b"small")
    assert fetch(head, [str(folder)], tmp_path / "here", limit_bytes=100_000) == ("large",)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["small"]


def test_only_what_stays_inside_is_unpacked(there: WsKubernetes, head: PodEndpoint, tmp_path: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as packed:
        for name in ("../out", "/etc/out", "in"):
            packed.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    content = target.getvalue()
    there.commands = lambda words: (0, content, f"sent {len(content)}".encode())
    assert sorted(fetch(head, ["/x"], tmp_path / "here")) == ["../out", "link"]
    assert not (tmp_path / "out").exists()
    assert sorted(p.relative_to(tmp_path / "here").as_posix() for p in (tmp_path / "here").rglob("*")) == [
        "etc",
        "etc/out",
        "in",
    ]


def torn(content: bytes, words: str) -> Ended:
    return 0, content, words.encode()


@pytest.mark.parametrize("ended", [torn(b"x" * 4000, "sent 10240"), torn(b"x" * 4000, "sent 4000"), torn(b"", "")])
def test_a_part_is_not_taken_for_all(there: WsKubernetes, head: PodEndpoint, tmp_path: Path, ended: Ended) -> None:
    there.commands = lambda words: ended
    with pytest.raises(ClusterError, match=r"only a part of /x came from pod"):
        fetch(head, ["/x"], tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_connection_that_breaks_is_a_sentence(there: WsKubernetes, head: PodEndpoint, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "f").write_bytes(bytes(100_000))
    there.cuts_after = 50_000
    with pytest.raises(UnreachablePodError, match=r"the connection to pod .* broke"):
        fetch(head, [str(tmp_path / "there")], tmp_path / "here")


def test_a_pod_that_sends_without_end_is_stopped(there: WsKubernetes, head: PodEndpoint, tmp_path: Path) -> None:
    there.commands = lambda words: (0, bytes(5_000_000), b"")
    with pytest.raises(ClusterError, match="sends more than"):
        fetch(head, ["/x"], tmp_path / "here", limit_bytes=100_000)


def test_no_folder_at_all_is_a_sentence(head: PodEndpoint, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"reading /no/such in pod .* failed \(there is no such folder\)"):
        fetch(head, ["/no/such"], tmp_path / "here")


def test_a_command_tells_its_words_and_status(head: PodEndpoint) -> None:
    printed = io.BytesIO()
    done = run_in_pod(head, ["sh", "-c", "echo out; echo wrong >&2; exit 3"], printed)
    assert (done.returncode, done.words, done.size_bytes, printed.getvalue()) == (3, "wrong", 4, b"out\n")


def test_a_command_that_does_not_end_is_a_sentence(
    there: WsKubernetes, head: PodEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dhctl.infra.kubernetes.pod_exec.PIECE_S", 0.05)
    with pytest.raises(ClusterError, match="does not end"):
        run_in_pod(head, ["sleep", "1"], io.BytesIO(), 0.2)


def test_a_mesh_in_front_is_passed_over() -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "mesh"}, {"name": "ray"}]}}
    assert main_container(pod) == "ray"


def test_a_node_that_does_not_answer_costs_only_its_own_log(
    there: WsKubernetes, cluster: Cluster, head: PodEndpoint, mark: Mark, record: RunRecord, tmp_path: Path
) -> None:
    for name in (head.name, mark.name("w-1")):
        there.pod_runs(name)
    there.broken[f"GET /api/v1/namespaces/lab/pods/{head.name}/log"] = [500]
    assert save_logs(cluster, "lab", record.run_id, tmp_path / "logs") == 2
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == [f"{mark.name('w-1')}.mesh.log", f"{mark.name('w-1')}.ray.log"]


def test_a_program_that_the_image_does_not_have_is_a_sentence(there: WsKubernetes, head: PodEndpoint) -> None:
    there.status = {"status": "Failure", "message": "failed to exec in container: no such program", "code": 500}
    with pytest.raises(UnreachablePodError, match=r"a command cannot be run in pod .*: failed to exec in container"):
        run_in_pod(head, ["true"], io.BytesIO())
