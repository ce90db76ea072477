"""The class through which Ray's autoscaler makes and ends workers on OpenStack, with a stand-in for nova."""

from __future__ import annotations

import base64
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException

from dhctl.infra import ray_config
from dhctl.infra.ledger import Ledger
from dhctl.infra.node import back_off
from dhctl.infra.node import fleet as any_fleet
from dhctl.infra.node.layout import write_json
from dhctl.infra.openstack.node import fleet
from dhctl.infra.openstack.node.agent import PROVIDER
from dhctl.infra.openstack.node.compute import NovaCompute
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.node_provider import OpenStackNodeProvider
from dhctl.infra.openstack.node.servers import ComputeError
from unit.node_fakes import HEAD_NAME, RUN_ID, Clock, FakeNova, make_node_folder, make_node_settings, told_by

WORKERS = {"ray-node-type": "worker"}
HEAD_ID = f"{HEAD_NAME}-0a0a0a"


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_node_folder(tmp_path / "node")


@pytest.fixture
def nova(monkeypatch: pytest.MonkeyPatch) -> FakeNova:
    made = FakeNova()
    made.add(HEAD_NAME, role="head")
    monkeypatch.setattr(NovaCompute, "here", lambda folder, run_id: made)
    monkeypatch.setattr(any_fleet, "FRESH_S", -1.0)  # each look asks nova
    return made


@pytest.fixture
def provider(folder: ServerFolder, nova: FakeNova) -> OpenStackNodeProvider:
    return make_provider(folder)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, provider: OpenStackNodeProvider) -> Clock:
    """The back-off's and the fleet's clock."""
    made = Clock()
    for module in (fleet, any_fleet, back_off):
        monkeypatch.setattr(module, "time", made)
    provider._fleet.back_off = back_off.BackOff(made.monotonic)
    return made


def make_provider(folder: ServerFolder) -> OpenStackNodeProvider:
    """As Ray's autoscaler makes it."""
    config = {"home": str(folder.path), "head_id": HEAD_ID, "head_address": "10.77.0.5"}
    return OpenStackNodeProvider(config, RUN_ID)


def add(provider: OpenStackNodeProvider, count: int = 1, request: str = "request-1") -> None:
    tags = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-launch-request": request}
    provider.create_node_with_resources_and_labels({}, tags, count, {"CPU": 2, "memory": 2.0**30}, {"zone": "a"})


def kinds(folder: ServerFolder) -> list[str]:
    return [event["kind"] for event in told_by(folder)]


def test_a_new_cluster_has_its_head_only(provider: OpenStackNodeProvider) -> None:
    assert provider.non_terminated_nodes({}) == [HEAD_ID]
    assert provider.non_terminated_nodes(WORKERS) == []
    assert provider.is_running(HEAD_ID)
    assert provider.internal_ip(HEAD_ID) == "10.77.0.5"
    assert provider.node_tags(HEAD_ID)["ray-node-type"] == "head"


def test_a_worker_is_asked_for_with_its_mark(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    (body,) = nova.bodies
    server = body["server"]
    assert server["name"] == node == server["metadata"]["dhctl_node"]
    assert server["metadata"]["dhctl_run"] == RUN_ID
    assert server["metadata"]["dhctl_role"] == "worker"
    assert f"dhctl-run={RUN_ID}" in server["tags"]
    assert server["networks"] == [{"uuid": "network"}]
    assert server["security_groups"] == [{"name": "members"}]
    assert server["imageRef"] == "image"
    assert "os:scheduler_hints" not in body
    told = _node_json(server["user_data"])
    assert (told["role"], told["node_id"], told["head_address"]) == ("worker", node, "10.77.0.5")
    assert told["ray_options"][:2] == ["--num-cpus", "2"]
    assert "zone=a" in told["ray_options"]
    assert provider.node_tags(node)["ray-launch-request"] == "request-1"
    acts = [(e.act, e.phase, e.detail["node"]) for e in Ledger(folder.ledger).entries()]
    assert acts == [("node.start", "intent", node), ("node.start", "done", node)]


def _node_json(user_data: str) -> dict[str, Any]:
    cloud_config = json.loads(base64.b64decode(user_data).decode().partition("\n")[2])
    files = {f["path"]: base64.b64decode(f["content"]) for f in cloud_config["write_files"]}
    told: dict[str, Any] = json.loads(files["/var/lib/dhctl/node.json"])
    return told


def test_no_secret_is_in_a_workers_user_data(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    add(provider)
    assert b"t" * 64 not in base64.b64decode(nova.bodies[0]["server"]["user_data"])


def test_volume_zone_group_and_config_drive_are_passed_on(tmp_path: Path, nova: FakeNova) -> None:
    changes = {"boot_volume_gib": 40, "volume_type": "fast", "availability_zone": "az1", "config_drive": True}
    settings = make_node_settings(**changes, server_group_id="group")
    add(make_provider(make_node_folder(tmp_path / "other", settings)))
    server = nova.bodies[0]["server"]
    assert "imageRef" not in server
    (volume,) = server["block_device_mapping_v2"]
    assert (volume["volume_size"], volume["volume_type"], volume["delete_on_termination"]) == (40, "fast", True)
    assert (server["availability_zone"], server["config_drive"]) == ("az1", True)
    assert nova.bodies[0]["os:scheduler_hints"] == {"group": "group"}


def test_the_limit_is_the_specs_whatever_ray_asks(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    for _ in range(3):
        with pytest.raises(NodeLaunchException, match=r"workers\.max is 2"):
            add(provider, 5)
    assert len(nova.bodies) == 2
    assert kinds(folder).count("refused") == 1  # told once, though Ray asks again each second


def test_what_is_in_flight_counts(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    nova.hold.clear()
    threads = [threading.Thread(target=add, args=(provider,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(nova.bodies) < 2:
        threads[0].join(0.01)
    with pytest.raises(NodeLaunchException, match=r"workers\.max"):
        add(provider)
    nova.hold.set()
    for thread in threads:
        thread.join(5)
    assert len(provider.non_terminated_nodes(WORKERS)) == 2


def test_ids_are_never_used_again(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    seen = set()
    for _ in range(3):
        add(provider)
        (node,) = provider.non_terminated_nodes(WORKERS)
        seen.add(node)
        provider.terminate_node(node)
        assert provider.non_terminated_nodes(WORKERS) == []
    assert len(seen) == 3


def test_a_new_autoscaler_adopts_what_it_finds(
    provider: OpenStackNodeProvider, folder: ServerFolder, nova: FakeNova
) -> None:
    add(provider, 2)
    second = make_provider(folder)
    assert sorted(second.non_terminated_nodes(WORKERS)) == sorted(provider.non_terminated_nodes(WORKERS))
    with pytest.raises(NodeLaunchException, match=r"workers\.max"):
        add(second)
    second.terminate_nodes(second.non_terminated_nodes(WORKERS))
    assert nova.names() == [HEAD_NAME]


def test_a_server_in_error_is_deleted_and_named_and_the_next_one_waits(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder, clock: Clock
) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    nova.faults[f"id-of-{node}"] = "No valid host was found."
    nova.change(node, status="ERROR")
    assert provider.non_terminated_nodes(WORKERS) == []
    assert nova.names() == [HEAD_NAME]
    (failed,) = [e for e in told_by(folder) if e["kind"] == "failed"]
    assert (failed["node"], failed["again_in_s"]) == (node, 15)
    assert "No valid host was found." in failed["reason"]
    with pytest.raises(NodeLaunchException, match=r"No valid host was found.*next try is in 15 s"):
        add(provider)
    clock.now += 16
    add(provider)
    assert len(provider.non_terminated_nodes(WORKERS)) == 1


def test_the_pause_doubles_until_a_worker_says_it_is_ready(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder, clock: Clock
) -> None:
    pauses = []
    nova.quota = "quota does not take 1 more worker: needs cores 2 (0 free of 20)"
    for _ in range(8):
        with pytest.raises(NodeLaunchException, match="quota does not take"):
            add(provider)
        pauses.append([e for e in told_by(folder) if e["kind"] == "failed"][-1]["again_in_s"])
        clock.now += pauses[-1] + 1
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    assert nova.bodies == []
    nova.quota = ""
    add(provider)
    node = nova.bodies[0]["server"]["name"]
    nova.change(node, status="ACTIVE")
    write_json(folder.reports / f"{node}.json", {"node": node, "at": clock.now + 1, "ready": True, "reason": ""})
    provider.non_terminated_nodes({})
    nova.quota = "again"
    with pytest.raises(NodeLaunchException, match="again"):
        add(provider)
    assert [e for e in told_by(folder) if e["kind"] == "failed"][-1]["again_in_s"] == 15


def test_a_creation_that_nova_refuses_is_told_and_waits(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    nova.refuse = ComputeError(403, "Quota exceeded for cores (HTTP 403)")
    for expected in ("Quota exceeded for cores", "next try is in"):
        with pytest.raises(NodeLaunchException, match=expected):
            add(provider)
    assert len(nova.bodies) == 1
    assert [e.phase for e in Ledger(folder.ledger).entries()] == ["intent", "failed"]


def test_a_server_whose_answer_was_lost_is_found_by_its_mark(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    nova.refuse = ComputeError(0, "connection reset")
    with pytest.raises(NodeLaunchException):
        add(provider)
    nova.add(nova.bodies[0]["server"]["name"], status="BUILD")  # nova had made it all the same
    assert provider.non_terminated_nodes(WORKERS) == [nova.bodies[0]["server"]["name"]]


def test_a_server_that_is_built_for_too_long_is_deleted(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder, clock: Clock
) -> None:
    add(provider)
    clock.now += fleet.BUILD_S - 5
    assert len(provider.non_terminated_nodes(WORKERS)) == 1
    clock.now += 10
    assert provider.non_terminated_nodes(WORKERS) == []
    assert nova.names() == [HEAD_NAME]
    assert "still being built after 15 minutes" in told_by(folder)[-1]["reason"]


def test_a_worker_that_says_what_is_wrong_is_deleted(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    report = {"node": node, "at": 0, "ready": False, "reason": "workers.gpus is 2 and the flavor gives 1"}
    write_json(folder.reports / f"{node}.json", report)
    assert provider.non_terminated_nodes(WORKERS) == []
    assert nova.names() == [HEAD_NAME]
    assert "the flavor gives 1" in told_by(folder)[-1]["reason"]
    assert list(folder.reports.iterdir()) == []
    with pytest.raises(NodeLaunchException, match="the flavor gives 1"):
        add(provider)


def test_an_api_in_trouble_ends_no_worker(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    add(provider, 2)
    before = provider.non_terminated_nodes({})
    nova.down = ComputeError(503, "service unavailable (HTTP 503)")
    for _ in range(3):
        assert provider.non_terminated_nodes({}) == before
    assert kinds(folder).count("api") == 1
    nova.down = None
    assert provider.non_terminated_nodes({}) == before


def test_without_any_list_yet_nothing_is_claimed(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    nova.down = ComputeError(503, "service unavailable")
    with pytest.raises(ComputeError):
        provider.non_terminated_nodes({})


def test_a_deletion_that_fails_is_asked_for_again(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    nova.keep = ComputeError(500, "oops")
    provider.terminate_node(node)
    assert provider.non_terminated_nodes(WORKERS) == [node]
    nova.keep = None
    assert provider.non_terminated_nodes(WORKERS) == []
    assert nova.deleted == [f"id-of-{node}"]


def test_a_broken_server_that_cannot_be_deleted_yet_is_no_node(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    nova.add(f"{RUN_ID}-w-1", status="ERROR")
    nova.keep = ComputeError(409, "locked")
    for _ in range(3):
        assert provider.non_terminated_nodes(WORKERS) == []
    assert kinds(folder).count("failed") == 1
    nova.keep = None
    provider.non_terminated_nodes({})
    assert nova.names() == [HEAD_NAME]


def test_one_that_is_being_deleted_is_no_node(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    nova.add(f"{RUN_ID}-w-1", ending=True)
    assert provider.non_terminated_nodes(WORKERS) == []
    add(provider, 2)  # and takes no room


def test_one_that_others_deleted_is_told(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder, clock: Clock
) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    nova.by_id.pop(f"id-of-{node}")
    assert provider.non_terminated_nodes(WORKERS) == []
    assert told_by(folder)[-1] == {**told_by(folder)[-1], "kind": "left", "node": node}
    assert provider.is_terminated(node)


def test_one_that_nova_took_and_does_not_list_yet_is_a_node(
    provider: OpenStackNodeProvider, nova: FakeNova, clock: Clock
) -> None:
    provider.non_terminated_nodes({})
    add(provider)
    hidden = dict(nova.by_id)
    nova.by_id = {k: v for k, v in hidden.items() if v.role == "head"}
    assert len(provider.non_terminated_nodes(WORKERS)) == 1
    clock.now += any_fleet.LISTED_S + 1
    assert provider.non_terminated_nodes(WORKERS) == []


def test_ending_twice_and_asking_for_the_gone_is_silent(provider: OpenStackNodeProvider) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    provider.terminate_node(node)
    provider.terminate_node(node)
    provider.terminate_nodes(["never-was"])
    assert (provider.node_tags(node), provider.internal_ip(node), provider.is_running(node)) == ({}, "", False)


def test_the_head_is_never_ended(provider: OpenStackNodeProvider, nova: FakeNova) -> None:
    provider.terminate_nodes([HEAD_ID, HEAD_NAME])
    provider.non_terminated_nodes({})
    assert nova.names() == [HEAD_NAME]


def test_nothing_starts_once_it_is_stopping(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    folder.stopping.touch()
    with pytest.raises(NodeLaunchException, match="the run is ending"):
        add(provider)
    assert nova.bodies == []


def test_a_worker_asked_for_while_down_came_is_ended(
    provider: OpenStackNodeProvider, nova: FakeNova, folder: ServerFolder
) -> None:
    nova.hold.clear()
    thread = threading.Thread(target=add, args=(provider,))
    thread.start()
    while not nova.bodies:
        thread.join(0.01)
    folder.stopping.touch()
    nova.hold.set()
    thread.join(5)
    assert nova.names() == [HEAD_NAME]


def test_nothing_starts_after_the_lease(tmp_path: Path, nova: FakeNova) -> None:
    late = make_provider(make_node_folder(tmp_path / "late", make_node_settings(expires_at=1000)))
    with pytest.raises(NodeLaunchException, match="the run is ending"):
        add(late)


def test_a_quota_that_cannot_be_read_is_no_reason_to_wait(
    provider: OpenStackNodeProvider, nova: FakeNova, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(vcpus: int, ram_mib: int) -> str:
        raise ComputeError(503, "no limits now")

    monkeypatch.setattr(nova, "launch_problem", unreadable)
    add(provider)
    assert len(nova.bodies) == 1


def test_tags_are_added(provider: OpenStackNodeProvider) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    provider.set_node_tags(node, {"mine": "1"})
    assert provider.non_terminated_nodes({"mine": "1"}) == [node]


def test_rays_configuration_names_this_class() -> None:
    config = ray_config.autoscaling_config(make_node_settings(), {"module": PROVIDER})
    module, _, name = config["provider"]["module"].rpartition(".")
    assert getattr(sys.modules[module], name) is OpenStackNodeProvider
    assert config["max_workers"] == ray_config.NEVER_REACHED
