"""The class through which Ray's autoscaler makes and ends workers on Kubernetes, with a stand-in for the API's pods."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException

from dhctl.infra import ray_config
from dhctl.infra.kubernetes.node import fleet as pod_fleet
from dhctl.infra.kubernetes.node import head
from dhctl.infra.kubernetes.node.node_provider import PodNodeProvider
from dhctl.infra.kubernetes.node.pods import ClusterPods, PodApiError
from dhctl.infra.kubernetes.node.settings import SETTINGS_ENV, PodSettings
from dhctl.infra.ledger import Ledger
from dhctl.infra.node import back_off, fleet
from dhctl.infra.node.layout import NodeFolder
from unit.node_fakes import Clock, told_by
from unit.pod_fakes import OWNER, RUN_ID, FakePods, make_pod_folder, make_pod_settings

WORKERS = {"ray-node-type": "worker"}
HEAD_ID = f"{RUN_ID}-head-0a0a0a"
FULL = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    return make_pod_folder(tmp_path / "node")


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> FakePods:
    made = FakePods()
    monkeypatch.setattr(ClusterPods, "here", lambda namespace: made)
    monkeypatch.setattr(fleet, "FRESH_S", -1.0)  # each look asks
    return made


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the settings."""
    path = tmp_path / "settings.json"
    monkeypatch.setenv(SETTINGS_ENV, str(path))
    path.write_text(json.dumps(make_pod_settings().to_dict()))
    return path


@pytest.fixture
def provider(folder: NodeFolder, pods: FakePods, settings_file: Path) -> PodNodeProvider:
    return make_provider(folder)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, provider: PodNodeProvider) -> Clock:
    """The back-off's and the fleet's clock."""
    made = Clock()
    for module in (fleet, pod_fleet, back_off):
        monkeypatch.setattr(module, "time", made)
    provider._fleet.back_off = back_off.BackOff(made.monotonic)
    return made


def make_provider(folder: NodeFolder) -> PodNodeProvider:
    """As Ray's autoscaler makes it."""
    config = {"home": str(folder.path), "head_id": HEAD_ID, "head_address": "10.244.0.5"}
    return PodNodeProvider(config, RUN_ID)


def add(provider: PodNodeProvider, count: int = 1) -> None:
    tags = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-launch-request": "request-1"}
    provider.create_node_with_resources_and_labels({}, tags, count, {"CPU": 2, "memory": 2.0**30}, {"zone": "a"})


def newest(folder: NodeFolder, kind: str) -> dict[str, object]:
    return [event for event in told_by(folder) if event["kind"] == kind][-1]


def count(folder: NodeFolder, kind: str) -> int:
    return sum(event["kind"] == kind for event in told_by(folder))


def only_worker(provider: PodNodeProvider) -> str:
    (node,) = provider.non_terminated_nodes(WORKERS)
    return node


def test_a_new_cluster_has_its_head_only(provider: PodNodeProvider, pods: FakePods) -> None:
    assert provider.non_terminated_nodes({}) == [HEAD_ID]
    assert (provider.is_running(HEAD_ID), provider.internal_ip(HEAD_ID)) == (True, "10.244.0.5")
    assert pods.selectors == [f"dhctl/run={RUN_ID},dhctl/role=worker"]


def test_a_worker_is_asked_for_with_intent_owner_and_name(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder
) -> None:
    add(provider)
    node = only_worker(provider)
    (body,) = pods.bodies
    assert node.startswith(f"{RUN_ID}-w-")
    assert (body["metadata"]["name"], body["metadata"]["ownerReferences"]) == (node, [OWNER])
    assert "10.244.0.5:6379" in body["spec"]["containers"][0]["command"]
    assert provider.node_tags(node)["ray-launch-request"] == "request-1"
    assert not provider.is_running(node)
    pods.change(node, phase="Running", ip="10.244.1.7")
    provider.non_terminated_nodes({})
    assert (provider.is_running(node), provider.internal_ip(node)) == (True, "10.244.1.7")
    acts = [(e.act, e.phase, e.detail["node"]) for e in Ledger(folder.ledger).entries()]
    assert acts == [("node.start", "intent", node), ("node.start", "done", node)]


def test_the_limit_is_the_specs_whatever_ray_asks(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder
) -> None:
    for _ in range(3):
        with pytest.raises(NodeLaunchException, match=r"workers\.max is 2"):
            add(provider, 5)
    assert len(pods.bodies) == 2
    assert count(folder, "refused") == 1


def test_what_is_in_flight_counts(provider: PodNodeProvider, pods: FakePods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "FRESH_S", 60.0)  # the list is that of a moment ago
    provider.non_terminated_nodes({})
    pods.hold.clear()
    threads = [threading.Thread(target=add, args=(provider,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(pods.bodies) < 2:
        threads[0].join(0.01)
    with pytest.raises(NodeLaunchException, match=r"workers\.max"):
        add(provider)
    pods.hold.set()
    for thread in threads:
        thread.join(5)
    with pytest.raises(NodeLaunchException, match=r"workers\.max"):
        add(provider)
    assert len(provider.non_terminated_nodes(WORKERS)) == 2


def test_ids_are_never_used_again(provider: PodNodeProvider, pods: FakePods) -> None:
    seen = set()
    for _ in range(3):
        add(provider)
        seen.add(only_worker(provider))
        provider.terminate_nodes(provider.non_terminated_nodes(WORKERS))
        assert provider.non_terminated_nodes(WORKERS) == []
    assert len(seen) == 3


def test_a_new_autoscaler_adopts_what_it_finds(provider: PodNodeProvider, folder: NodeFolder, pods: FakePods) -> None:
    add(provider, 2)
    second = make_provider(folder)
    assert sorted(second.non_terminated_nodes(WORKERS)) == sorted(provider.non_terminated_nodes(WORKERS))
    with pytest.raises(NodeLaunchException, match=r"workers\.max"):
        add(second)
    second.terminate_nodes([HEAD_ID, *second.non_terminated_nodes(WORKERS)])
    assert pods.by_name == {}


def test_a_pod_without_a_place_is_told_at_once_and_given_up_after_a_minute(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, clock: Clock
) -> None:
    add(provider)
    node = only_worker(provider)
    pods.change(node, unschedulable=FULL)
    assert only_worker(provider) == node
    assert newest(folder, "trouble")["reason"] == f"no node takes a worker: {FULL}"
    clock.now += 59
    assert only_worker(provider) == node
    assert count(folder, "trouble") == 1
    clock.now += 2
    assert provider.non_terminated_nodes(WORKERS) == []
    assert pods.deleted == [f"uid-of-{node}"]
    failed = newest(folder, "failed")
    assert (failed["reason"], failed["again_in_s"]) == (f"no node takes a worker: {FULL}; given up after 61 s", 15)
    with pytest.raises(NodeLaunchException, match=r"Insufficient.*next try is in 15 s"):
        add(provider)
    clock.now += 16
    add(provider)


def test_what_holds_several_up_is_told_once(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, clock: Clock
) -> None:
    add(provider, 2)
    first, second = provider.non_terminated_nodes(WORKERS)
    pods.change(first, unschedulable=FULL)
    pods.change(second, unschedulable="0/2 nodes are available: 2 node(s) had untolerated taint.")
    for _ in range(3):
        provider.non_terminated_nodes({})
    assert count(folder, "trouble") == 2
    pods.change(second, unschedulable=FULL)
    provider.non_terminated_nodes({})
    assert count(folder, "trouble") == 2
    for phase in ("", FULL):  # it went away, and came again
        for node in (first, second):
            pods.change(node, unschedulable=phase)
        provider.non_terminated_nodes({})
    assert count(folder, "trouble") == 3


def test_one_that_finds_a_place_in_time_has_its_whole_minute_again(
    provider: PodNodeProvider, pods: FakePods, clock: Clock
) -> None:
    add(provider)
    node = only_worker(provider)
    pods.change(node, unschedulable=FULL)
    only_worker(provider)
    clock.now += 50
    pods.change(node, unschedulable="", waiting="")
    only_worker(provider)
    clock.now += 50
    pods.change(node, waiting="ErrImagePull: not found")
    assert only_worker(provider) == node


def test_a_pod_for_which_the_cluster_makes_a_node_is_kept(
    provider: PodNodeProvider, pods: FakePods, clock: Clock
) -> None:
    add(provider)
    pods.node_is_made = True
    pods.change(only_worker(provider), unschedulable=FULL)
    for _ in range(3):
        only_worker(provider)
        clock.now += 299
    assert pods.promises == 1
    clock.now += 10
    assert provider.non_terminated_nodes(WORKERS) == []


def test_an_image_that_cannot_be_had_is_told_at_once(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, clock: Clock
) -> None:
    add(provider)
    pods.change(only_worker(provider), waiting='ImagePullBackOff: Back-off pulling image "registry.lab/ray:2.60.0"')
    only_worker(provider)
    assert "cannot start: ImagePullBackOff: Back-off pulling image" in str(newest(folder, "trouble")["reason"])
    clock.now += 61
    assert provider.non_terminated_nodes(WORKERS) == []
    assert newest(folder, "failed")["again_in_s"] == 15


@pytest.mark.parametrize(
    ("reason", "ran_s", "waits"),
    [
        ("OOMKilled: it used more memory than its limit", 300, False),
        ("OOMKilled: it used more memory than its limit", 5, True),
        ("Evicted: The node was low on resource: memory.", 5, False),
        ("Error (exit code 1)", 0.5, True),
        ("", 300, False),
    ],
)
def test_one_that_ended_is_deleted_named_and_not_counted(
    provider: PodNodeProvider, pods: FakePods, clock: Clock, reason: str, ran_s: float, waits: bool
) -> None:
    add(provider, 2)
    first, second = provider.non_terminated_nodes(WORKERS)
    pods.change(first, phase="Failed", reason=reason, started_at=clock.now, ended_at=clock.now + ran_s)
    assert provider.non_terminated_nodes(WORKERS) == [second]
    assert pods.deleted == [f"uid-of-{first}"]
    failed = newest(provider._folder, "failed")
    assert failed["node"] == first
    assert failed["reason"] == f"worker {first} ended: {reason or 'Failed'}"
    assert ("again_in_s" in failed) == waits
    if waits:
        clock.now += 16
    add(provider)
    assert len(provider.non_terminated_nodes(WORKERS)) == 2


def test_the_pause_doubles_until_a_worker_has_run_for_a_while(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, clock: Clock
) -> None:
    pauses = []
    pods.refuse = PodApiError(403, 'pods "x" is forbidden: exceeded quota: lab, requested: pods=1, used: pods=9')
    for _ in range(8):
        with pytest.raises(NodeLaunchException, match="quota takes no more worker: exceeded quota: lab"):
            add(provider)
        pauses.append(newest(folder, "failed")["again_in_s"])
        clock.now += back_off.LONGEST_S + 1
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    pods.refuse = None
    add(provider)
    pods.change(only_worker(provider), phase="Running", started_at=clock.now)
    clock.now += 30
    only_worker(provider)
    assert provider._fleet.back_off._pause_s == 600
    clock.now += 31
    only_worker(provider)
    assert provider._fleet.back_off._pause_s == 15


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PodApiError(403, "serviceaccount cannot create pods"), "the cluster forbids workers, as it does when a run"),
        (PodApiError(422, "spec.volumes[0].name: Required value"), "the cluster refuses a worker: spec.volumes"),
        (PodApiError(0, "connection reset"), "the cluster refuses a worker: connection reset"),
    ],
)
def test_what_the_api_refuses_is_told_and_waits(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, error: PodApiError, sentence: str
) -> None:
    pods.refuse = error
    for expected in (sentence, "next try is in"):
        with pytest.raises(NodeLaunchException, match=expected):
            add(provider)
    assert len(pods.bodies) == 1
    assert [e.phase for e in Ledger(folder.ledger).entries()] == ["intent", "failed"]
    assert count(folder, "failed") == 1


def test_a_pod_whose_answer_was_lost_is_found_by_its_labels(provider: PodNodeProvider, pods: FakePods) -> None:
    pods.refuse = PodApiError(0, "connection reset")
    with pytest.raises(NodeLaunchException):
        add(provider)
    name = pods.bodies[0]["metadata"]["name"]
    pods.add(name, phase="Pending")  # it had been made all the same
    assert only_worker(provider) == name


def test_no_worker_without_an_owner(provider: PodNodeProvider, pods: FakePods) -> None:
    """It would outlive its run."""
    pods.owned_by = []
    with pytest.raises(NodeLaunchException, match="has no owner"):
        add(provider)
    assert pods.bodies == []


def test_an_api_in_trouble_ends_no_worker(provider: PodNodeProvider, pods: FakePods, folder: NodeFolder) -> None:
    add(provider, 2)
    before = provider.non_terminated_nodes({})
    pods.down = PodApiError(503, "service unavailable")
    for _ in range(3):
        assert provider.non_terminated_nodes({}) == before
    assert newest(folder, "api")["reason"] == "pods cannot be listed, the last list counts: service unavailable"
    assert count(folder, "api") == 1
    pods.down = None
    assert provider.non_terminated_nodes({}) == before


def test_without_any_list_yet_nothing_is_claimed(provider: PodNodeProvider, pods: FakePods) -> None:
    pods.down = PodApiError(503, "service unavailable")
    with pytest.raises(PodApiError):
        provider.non_terminated_nodes({})


def test_a_deletion_that_fails_is_asked_for_again(provider: PodNodeProvider, pods: FakePods) -> None:
    add(provider)
    node = only_worker(provider)
    pods.keep = PodApiError(500, "oops")
    provider.terminate_node(node)
    assert only_worker(provider) == node
    pods.keep = None
    assert provider.non_terminated_nodes(WORKERS) == []
    assert pods.deleted == [f"uid-of-{node}"]


def test_one_that_is_being_deleted_is_no_node(provider: PodNodeProvider, pods: FakePods, folder: NodeFolder) -> None:
    add(provider)
    node = only_worker(provider)
    pods.change(node, deletion=True)
    assert provider.non_terminated_nodes(WORKERS) == []
    assert pods.deleted == []
    add(provider, 2)  # and takes no room


def test_one_that_is_evicted_is_named_once(provider: PodNodeProvider, pods: FakePods, folder: NodeFolder) -> None:
    add(provider)
    node = only_worker(provider)
    pods.change(node, deletion=True, taken="EvictionByEvictionAPI: Eviction API: evicting")
    for _ in range(2):
        assert provider.non_terminated_nodes(WORKERS) == []
    told = f"worker {node} was taken away: EvictionByEvictionAPI: Eviction API: evicting"
    assert newest(folder, "failed")["reason"] == told
    assert count(folder, "failed") == 1
    add(provider)  # and nothing waits


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"taken": "EvictionByEvictionAPI: Eviction API: evicting"}, "was taken away: EvictionByEvictionAPI: "),
        ({"reason": "OOMKilled: it used more memory than its limit"}, "ended: OOMKilled: it used more memory"),
    ],
)
def test_one_whose_loss_ray_notices_first_is_named_when_it_is_released(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, words: dict[str, str], told: str
) -> None:
    add(provider)
    node = only_worker(provider)
    pods.last_words = words
    provider.terminate_node(node)
    assert str(newest(folder, "failed")["reason"]).startswith(f"worker {node} {told}")
    assert count(folder, "failed") == 1
    add(provider)  # and nothing waits


def test_one_that_is_only_released_has_no_failure(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder
) -> None:
    add(provider)
    node = only_worker(provider)
    pods.last_words = {"reason": "Error (exit code 137)"}
    provider.terminate_node(node)
    assert pods.deleted == [f"uid-of-{node}"]
    assert count(folder, "failed") == 0


def test_one_that_others_deleted_is_told(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder, clock: Clock
) -> None:
    add(provider)
    node = only_worker(provider)
    pods.by_name.clear()
    assert provider.non_terminated_nodes(WORKERS) == []
    assert newest(folder, "left")["node"] == node
    assert provider.is_terminated(node)


def test_nothing_starts_once_it_is_stopping(provider: PodNodeProvider, pods: FakePods, folder: NodeFolder) -> None:
    folder.stopping.touch()
    with pytest.raises(NodeLaunchException, match="the run is ending"):
        add(provider)
    assert pods.bodies == []


def test_a_worker_asked_for_while_down_came_is_ended(
    provider: PodNodeProvider, pods: FakePods, folder: NodeFolder
) -> None:
    pods.hold.clear()
    thread = threading.Thread(target=add, args=(provider,))
    thread.start()
    while not pods.bodies:
        thread.join(0.01)
    folder.stopping.touch()
    pods.hold.set()
    thread.join(5)
    assert pods.by_name == {}


def test_nothing_starts_after_the_lease(folder: NodeFolder, pods: FakePods, settings_file: Path) -> None:
    settings_file.write_text(json.dumps(make_pod_settings(expires_at=1000).to_dict()))
    with pytest.raises(NodeLaunchException, match="the run is ending"):
        add(make_provider(folder))


def test_settings_survive_an_engine_that_turns_numbers_into_floats() -> None:
    settings = make_pod_settings(worker_pod={"spec": {"securityContext": {"runAsUser": 1000}, "list": [1]}})
    body = settings.to_dict()
    body["worker_pod"] = {"spec": {"securityContext": {"runAsUser": 1000.0}, "list": [1.0]}}
    read = PodSettings.from_dict({k: float(v) if type(v) is int else v for k, v in body.items()})
    assert read == settings
    assert json.dumps(read.worker_pod) == json.dumps(settings.worker_pod)
    with pytest.raises(TypeError, match="unknown"):
        PodSettings.from_dict({**body, "unknown": 1})


def test_rays_configuration_names_this_class() -> None:
    config = ray_config.autoscaling_config(make_pod_settings(), {"module": head.PROVIDER})
    module, _, name = config["provider"]["module"].rpartition(".")
    assert getattr(sys.modules[module], name) is PodNodeProvider
