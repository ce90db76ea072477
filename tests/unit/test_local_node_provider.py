"""The class through which Ray's autoscaler adds and removes workers, with a stand-in for the start of a Ray node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import head, machine, node_provider, nodes, supervisor
from dhctl.infra.local.node_provider import LocalNodeProvider
from dhctl.infra.local.nodes import ClusterSettings, NodeRecord
from dhctl.infra.processes import ProcessMark, start_ticks, wait_until
from unit.fakes import make_settings

TAGS = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-node-status": "uninitialized"}
WORKERS = {"ray-node-type": "worker"}
HEAD = head.Head("head-1", "127.1.2.2", {"gcs": 6379, "dashboard": 8265, "raylet": 7})


class SleepingNodes:
    """Stands in for `nodes.spawn`: starts `sleep` instead of Ray; where it matters, under a real supervisor."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings, self.supervised = settings, False
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(
        self, settings: ClusterSettings, node_id: str, command: Sequence[str], env: Mapping[str, str]
    ) -> ProcessMark:
        self.commands.append(list(command))
        self.environments.append(dict(env))
        words = [sys.executable, "-I", "-S", supervisor.__file__, "--run", settings.run_id, "--node", node_id]
        words += ["--grace", "0.1", "--until", "4e9", "--"]
        started = subprocess.Popen([*(words if self.supervised else []), "sleep", "60"], start_new_session=True)
        self.processes.append(started)
        mark = ProcessMark.of(started.pid)
        assert mark
        if self.supervised:  # until it has its handlers and its command
            assert wait_until(lambda: bool(supervisor.members(mark.pid)), 5, every_s=0.01)
        return mark

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(5)


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    run_id = f"dh-{os.urandom(5).hex()}".translate(str.maketrans("0189", "abcd"))
    made = make_settings(tmp_path, run_id=run_id, max_workers=2)
    made.folder.create()
    Ledger(made.ledger_path).create()
    made.folder.settings.write_text(json.dumps(made.to_dict()))
    return made


@pytest.fixture
def spawned(settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[SleepingNodes]:
    stand_in = SleepingNodes(settings)
    monkeypatch.setattr(nodes, "spawn", stand_in)
    monkeypatch.setattr(machine, "gpu_indices", lambda: ())
    yield stand_in
    stand_in.end()


@pytest.fixture
def provider(settings: ClusterSettings, spawned: SleepingNodes) -> LocalNodeProvider:
    return make_provider(settings)


def make_provider(settings: ClusterSettings) -> LocalNodeProvider:
    """As Ray's autoscaler makes it, from the configuration that the head wrote."""
    return LocalNodeProvider(head.autoscaling_config(settings, HEAD, "session_1")["provider"], settings.run_id)


def add(provider: LocalNodeProvider, count: int = 1) -> None:
    provider.create_node_with_resources_and_labels({}, TAGS, count, {"CPU": 1}, None)


def test_a_new_cluster_has_no_nodes(provider: LocalNodeProvider) -> None:
    assert provider.non_terminated_nodes({}) == []


def test_workers_come_and_go(provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes) -> None:
    add(provider, 2)
    both = provider.non_terminated_nodes(WORKERS)
    assert len(set(both)) == 2
    assert all(provider.is_running(n) and not provider.is_terminated(n) for n in both)
    assert {provider.internal_ip(n) for n in both} == {head.subnet_of(settings.run_id) + last for last in "34"}
    provider.terminate_nodes(both)
    assert provider.non_terminated_nodes({}) == []
    assert all(p.wait(5) is not None for p in spawned.processes)
    assert list((settings.folder.path / "tmp").iterdir()) == []
    acts = [(e.act, e.phase) for e in Ledger(settings.ledger_path).entries()]
    assert acts[:2] == [("node.start", "intent"), ("node.start", "done")]
    assert ("node.leave", "note") in acts


def test_the_limit_is_the_specs_whatever_ray_asks(provider: LocalNodeProvider, spawned: SleepingNodes) -> None:
    with pytest.raises(NodeLaunchException, match=r"workers\.max is 2"):
        add(provider, 5)
    assert len(provider.non_terminated_nodes(WORKERS)) == len(spawned.processes) == 2


class Clock:
    """Stands in for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_after_a_refusal_it_refuses_at_once_for_a_while(
    provider: LocalNodeProvider, spawned: SleepingNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(node_provider, "time", clock)
    with pytest.raises(NodeLaunchException):
        add(provider, 3)
    provider.terminate_node(provider.non_terminated_nodes(WORKERS)[0])
    clock.now += node_provider.REFUSAL_S - 1
    with pytest.raises(NodeLaunchException, match="refused a moment ago"):
        add(provider)
    clock.now += 2
    add(provider)
    assert len(provider.non_terminated_nodes(WORKERS)) == 2


def test_too_few_gpus_are_a_refusal(
    settings: ClusterSettings, spawned: SleepingNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu_indices", lambda: (4, 5, 6))
    settings.folder.settings.write_text(json.dumps({**settings.to_dict(), "worker_gpus": 2}))
    provider = make_provider(settings)
    with pytest.raises(NodeLaunchException, match="needs 2 GPUs and 1 of 3 are free"):
        add(provider, 2)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in spawned.environments] == ["4,5"]


def test_ids_are_never_used_again(provider: LocalNodeProvider, settings: ClusterSettings) -> None:
    seen: set[str] = set()
    for _ in range(2):
        add(provider)
        (node,) = provider.non_terminated_nodes(WORKERS)
        assert node not in seen
        assert settings.folder.ray_temp(node).name not in {settings.folder.ray_temp(n).name for n in seen}
        seen.add(node)
        provider.terminate_node(node)


def test_a_new_autoscaler_adopts_what_it_finds(
    provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes
) -> None:
    add(provider, 2)
    second = make_provider(settings)
    assert sorted(second.non_terminated_nodes(WORKERS)) == sorted(provider.non_terminated_nodes(WORKERS))
    with pytest.raises(NodeLaunchException):
        add(second)
    second.terminate_nodes(second.non_terminated_nodes(WORKERS))
    assert provider.non_terminated_nodes(WORKERS) == []


def test_a_worker_that_nobody_recorded_is_ended(
    provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes
) -> None:
    add(provider)
    spawned.supervised = True
    stray = spawned(settings, "w-stray", ["ray"], dict(os.environ))  # its autoscaler died before it wrote the record
    second = make_provider(settings)
    assert not stray.alive()
    assert len(second.non_terminated_nodes(WORKERS)) == 1
    assert [e.detail["node"] for e in Ledger(settings.ledger_path).entries() if e.act == "node.stray"] == ["w-stray"]


def test_tags_are_added_and_kept(provider: LocalNodeProvider, settings: ClusterSettings) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    provider.set_node_tags(node, {"ray-node-status": "up-to-date", "mine": "1"})
    assert make_provider(settings).node_tags(node) == {
        **TAGS,
        "ray-node-status": "up-to-date",
        "ray-node-name": node,
        "mine": "1",
    }
    assert provider.non_terminated_nodes({"mine": "1"}) == [node]
    assert provider.non_terminated_nodes({"mine": "2"}) == []


def test_ending_twice_and_asking_for_the_gone_is_silent(provider: LocalNodeProvider) -> None:
    add(provider)
    (node,) = provider.non_terminated_nodes(WORKERS)
    provider.terminate_node(node)
    provider.terminate_node(node)
    provider.terminate_nodes(["never-was"])
    provider.set_node_tags(node, {"a": "b"})
    assert (provider.node_tags(node), provider.internal_ip(node), provider.is_running(node)) == ({}, "", False)


def test_the_head_is_never_ended(
    provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes
) -> None:
    process = spawned(settings, "head-1", ["ray"], dict(os.environ))
    tags = {"ray-node-type": "head", "ray-user-node-type": "head"}
    NodeRecord("head-1", process, "127.1.2.2", {}, tags).save(settings.folder)
    provider.terminate_node("head-1")
    provider.terminate_nodes(["head-1"])
    assert process.alive()
    assert provider.non_terminated_nodes({"ray-node-type": "head"}) == ["head-1"]
    add(provider, 2)  # the head does not count as a worker


def test_a_worker_that_died_is_forgotten_and_makes_room(
    provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes
) -> None:
    spawned.supervised = True
    add(provider, 2)
    children = supervisor.members(spawned.processes[0].pid)
    assert children
    spawned.processes[0].kill()
    spawned.processes[0].wait()
    assert len(provider.non_terminated_nodes(WORKERS)) == 1
    assert wait_until(lambda: all(start_ticks(c) is None for c in children), 5)
    notes = [e.detail for e in Ledger(settings.ledger_path).entries() if e.act == "node.leave"]
    assert [n["why"] for n in notes] == ["died"]
    add(provider)
    assert len(provider.non_terminated_nodes(WORKERS)) == 2


def test_a_node_is_started_with_what_ray_asked_for(
    provider: LocalNodeProvider, settings: ClusterSettings, spawned: SleepingNodes
) -> None:
    resources = {"CPU": 3, "GPU": 0, "memory": 2.0**30, "object_store_memory": 2.0**27, "scanner": 1.0}
    provider.create_node_with_resources_and_labels({}, TAGS, 1, resources, {"zone": "a"})
    (command,) = spawned.commands
    options = dict(pairwise(command))
    assert options["--address"] == "127.1.2.2:6379"
    assert (options["--num-cpus"], options["--num-gpus"]) == ("3", "0")
    assert (options["--memory"], options["--object-store-memory"]) == (str(2**30), str(2**27))
    assert json.loads(options["--resources"]) == {"scanner": 1.0}
    assert options["--labels"] == "zone=a"
    assert resources["CPU"] == 3  # Ray's own mapping is not changed
    assert spawned.environments[0]["RAY_CLOUD_INSTANCE_ID"] == provider.non_terminated_nodes({})[0]


def test_rays_configuration_names_this_class_and_holds_its_secret_back(settings: ClusterSettings) -> None:
    settings.folder.token.write_text("canary")
    config = head.autoscaling_config(settings, HEAD, "session_1")
    module, _, name = config["provider"]["module"].rpartition(".")
    assert getattr(sys.modules[module], name) is LocalNodeProvider
    assert "canary" not in json.dumps(config)
    assert config["idle_timeout_minutes"] == 1
    worker = config["available_node_types"]["worker"]
    assert worker["resources"]["memory"] + worker["resources"]["object_store_memory"] == settings.worker_memory_bytes
