"""One node as a supervised process tree: settings, records, ports, and stopping exactly its own."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import nodes
from dhctl.infra.local.nodes import ClusterSettings, NodeRecord
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import ProcessMark, start_ticks
from unit.conftest import Start
from unit.fakes import make_settings

TAGS = {"ray-node-type": "worker"}


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    made = make_settings(tmp_path, run_id=f"dh-{secrets.token_hex(5)}")  # tests beside us start supervisors too
    made.folder.create()
    Ledger(made.ledger_path).create()
    return made


def node_of(process: ProcessMark, node_id: str = "w-1") -> NodeRecord:
    return NodeRecord(node_id, process, "127.1.2.3", {"raylet": 7}, TAGS, [0])


@pytest.mark.parametrize("port", [None, 8265])
def test_settings_survive_an_engine_that_knows_only_floats(tmp_path: Path, port: int | None) -> None:
    made = make_settings(tmp_path, expires_at=1785000000.25, idle_timeout_s=1.5, dashboard_port=port)
    floats = {k: float(v) if isinstance(v, int) else v for k, v in json.loads(json.dumps(made.to_dict())).items()}
    read = ClusterSettings.from_dict(floats)
    assert read == made
    assert [type(getattr(read, k)) for k in ("max_workers", "worker_memory_bytes")] == [int, int]


def test_ports_are_free_and_differ() -> None:
    names = [f"p{n}" for n in range(40)]
    ports = nodes.free_ports(names)
    assert list(ports) == names
    assert len(set(ports.values())) == 40
    for port in ports.values():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_record_survives_being_stored(settings: ClusterSettings) -> None:
    record = node_of(ProcessMark(1, 2, "boot"))
    record.save(settings.folder)
    (settings.folder.nodes / ".w-2.123").write_text("{")  # a writer was killed here
    assert nodes.load_nodes(settings.folder) == {"w-1": record}


def test_a_folder_that_is_gone_has_no_nodes(tmp_path: Path) -> None:
    assert nodes.load_nodes(make_settings(tmp_path).folder) == {}


def test_a_nodes_environment_is_the_runs_own(settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somebody else's")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    env = nodes.node_environment(settings, "w-1", "worker")
    assert env[RUN_ENV] == settings.run_id
    assert env["RAY_AUTH_TOKEN_PATH"] == str(settings.folder.token)
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert env["HTTPS_PROXY"] == "http://proxy"
    assert not {"RAY_ADDRESS", "PULUMI_CONFIG_PASSPHRASE"} & env.keys()


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # its supervisor outlives us
def test_a_node_is_found_by_its_supervisor_and_stopped_whole(
    settings: ClusterSettings, eventually: Callable[..., None], tmp_path: Path
) -> None:
    inner = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & echo started; wait"
    mark = nodes.spawn(settings, "w-1", ["/bin/sh", "-c", inner], dict(os.environ))
    try:
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        escaped = int((tmp_path / "pid").read_text())
        assert list(nodes.supervisors(settings.run_id)) == [(mark.pid, "w-1")]
        assert list(nodes.supervisors("dh-ddddeeeeff")) == []
    finally:
        nodes.stop_nodes([node_of(mark)], Ledger(settings.ledger_path))
    assert start_ticks(escaped) is None
    assert not mark.alive()
    assert (settings.folder.logs / "w-1.log").read_text() == "started\n"
    assert [(e.act, e.phase) for e in Ledger(settings.ledger_path).entries()] == [
        ("nodes.stop", "intent"),
        ("nodes.stop", "done"),
    ]


def test_stopping_nothing_is_silent(settings: ClusterSettings) -> None:
    nodes.stop_nodes([], Ledger(settings.ledger_path))
    assert Ledger(settings.ledger_path).entries() == []


@pytest.fixture
def foreign(start: Start, eventually: Callable[..., None], tmp_path: Path) -> tuple[ProcessMark, int]:
    """Somebody else's process that leads a session, and its child."""
    leader = start("/bin/sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    mark = ProcessMark.of(leader.pid)
    assert mark
    return mark, int((tmp_path / "child").read_text())


def test_a_pid_of_an_earlier_boot_kills_nobody(foreign: tuple[ProcessMark, int]) -> None:
    mark, child = foreign
    nodes.kill_tree(replace(mark, boot="earlier"))
    assert start_ticks(child) is not None


def test_a_pid_that_somebody_else_has_now_kills_nobody(foreign: tuple[ProcessMark, int]) -> None:
    mark, child = foreign
    nodes.kill_tree(replace(mark, ticks=mark.ticks - 1))  # our supervisor died; its pid was given out again
    assert mark.alive()
    assert start_ticks(child) is not None
