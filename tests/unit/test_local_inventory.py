"""Looking at this machine for everything of a run: what proves to be the run's is found, nothing else is touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import inventory, nodes
from dhctl.infra.local.head import subnet_of
from dhctl.infra.local.layout import RunFolder
from dhctl.infra.local.nodes import ClusterSettings, NodeRecord
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import ProcessMark
from dhctl.infra.record import RunRecord
from dhctl.stacks.local.target import LocalTarget, settings_of
from unit.conftest import Start
from unit.fakes import make_settings

LISTEN = """
import socket, sys, time
s = socket.socket(); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen()
print(s.getsockname()[1], flush=True); time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    made = make_settings(tmp_path, run_id=f"dh-{os.urandom(5).hex()}".translate(str.maketrans("0189", "abcd")))
    made.folder.create()
    Ledger(made.ledger_path).create()
    return made


@pytest.fixture
def folder(settings: ClusterSettings) -> RunFolder:
    return settings.folder


@pytest.fixture
def ledger(settings: ClusterSettings) -> Ledger:
    return Ledger(settings.ledger_path)


def pids(folder: RunFolder, ledger: Ledger) -> set[int]:
    return {m.pid for m in inventory.owned_processes(folder, ledger)}


def states(folder: RunFolder, ledger: Ledger) -> dict[str, str]:
    return {c.place: c.state for c in inventory.look(folder, ledger)}


def test_a_process_with_the_mark_is_found_and_swept(
    folder: RunFolder, ledger: Ledger, start: Start, eventually: Callable[..., None]
) -> None:
    marked = start("/bin/sh", "-c", "env -u DHCTL_RUN_ID sleep 60 & wait", env={RUN_ENV: folder.run_id})
    eventually(lambda: len(pids(folder, ledger)) == 2)  # its child descends from it, without the mark
    assert marked.pid in pids(folder, ledger)
    assert states(folder, ledger)["processes of this machine"] == "left"
    inventory.sweep(folder, ledger)
    assert marked.wait(5) != 0
    assert pids(folder, ledger) == set()
    assert set(states(folder, ledger).values()) == {"none"}
    assert [e.phase for e in ledger.entries() if e.act == "sweep.processes"] == ["intent", "done"]


def test_before_a_next_head_all_processes_go_and_the_folder_stays(
    record: RunRecord, start: Start, eventually: Callable[..., None]
) -> None:
    target, settings = LocalTarget(), settings_of(record)
    settings.folder.create()
    assert target.lost_head(record) == "its processes have ended"
    head = start("sleep", "60", env={RUN_ENV: record.run_id})
    mark = ProcessMark.of(head.pid)
    assert mark
    NodeRecord("head-1", mark, "127.0.0.2", {}, {"ray-node-type": "head"}).save(settings.folder)
    assert target.lost_head(record) == ""
    left = start("sleep", "60", env={RUN_ENV: record.run_id})  # such as a job's driver
    eventually(lambda: left.pid in pids(settings.folder, record.ledger))
    for _ in range(2):
        target.clear_head(record, lambda event: None)
        assert pids(settings.folder, record.ledger) == set()
    assert settings.folder.is_ours()
    assert nodes.load_nodes(settings.folder) == {}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # its supervisor outlives us
def test_a_recorded_supervisor_is_found_without_any_mark(
    settings: ClusterSettings, folder: RunFolder, ledger: Ledger, eventually: Callable[..., None]
) -> None:
    env = {k: v for k, v in os.environ.items() if k != RUN_ENV}
    mark = nodes.spawn(settings, "w-1", ["sleep", "60"], env)
    ledger.done("node.start", node="w-1", process=mark.to_dict())
    try:
        eventually(lambda: len(pids(folder, ledger)) == 2)
    finally:
        inventory.sweep(folder, ledger)
    assert pids(folder, ledger) == set()


def test_a_process_with_rays_title_and_its_work_in_the_folder_is_found(
    folder: RunFolder, ledger: Ledger, start: Start, eventually: Callable[..., None]
) -> None:
    titled = start("ray::TrainWorker.run", "60", executable="/bin/sleep", cwd=folder.logs)
    foreign = start("ray::TrainWorker.run", "60", executable="/bin/sleep", cwd="/")
    eventually(lambda: pids(folder, ledger) == {titled.pid})
    inventory.sweep(folder, ledger)
    assert titled.wait(5) != 0
    assert foreign.poll() is None


def test_strangers_survive_a_sweep(folder: RunFolder, ledger: Ledger, start: Start) -> None:
    (folder.logs / "w-1.log").write_text("x")
    strangers: dict[str, subprocess.Popen[bytes]] = {
        "the id in its arguments": start(sys.executable, "-IS", "-c", "input()", folder.run_id, stdin=subprocess.PIPE),
        "its work in the folder": start("sleep", "60", cwd=folder.path),
        "a file of the folder open": start("tail", "-f", str(folder.logs / "w-1.log"), stdout=subprocess.DEVNULL),
        "the mark of another run": start("sleep", "60", env={RUN_ENV: "dh-ddddeeeeff"}),
        "the mark's name in another variable": start("sleep", "60", env={"NOTE": f"{RUN_ENV}={folder.run_id}"}),
    }
    marked = start("sleep", "60", env={RUN_ENV: folder.run_id})
    inventory.sweep(folder, ledger)
    assert marked.wait(5) != 0
    assert [what for what, process in strangers.items() if process.poll() is not None] == []
    stdin = strangers["the id in its arguments"].stdin
    assert stdin
    stdin.close()


def test_a_recorded_pid_that_somebody_else_has_now_survives(folder: RunFolder, ledger: Ledger, start: Start) -> None:
    stranger = start("sleep", "60")
    mark = ProcessMark.of(stranger.pid)
    assert mark
    ledger.done("node.start", process={**mark.to_dict(), "ticks": mark.ticks - 1})
    assert pids(folder, ledger) == set()
    inventory.sweep(folder, ledger)
    assert stranger.poll() is None


def test_this_process_and_its_ancestors_are_never_the_runs(
    folder: RunFolder, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.done("node.start", process=ProcessMark.me().to_dict())
    assert not {os.getpid(), os.getppid()} & pids(folder, ledger)


def test_a_sweep_where_nothing_is_left_writes_nothing(tmp_path: Path, ledger: Ledger) -> None:
    inventory.sweep(RunFolder(tmp_path / "none", "dh-ddddeeeeff"), ledger)
    assert ledger.entries() == []


def test_a_folder_that_is_not_the_runs_is_left_and_told(folder: RunFolder, ledger: Ledger) -> None:
    (folder.path / "mark.json").write_text('{"run": "dh-ddddeeeeff"}')
    inventory.sweep(folder, ledger)
    (check,) = [c for c in inventory.look(folder, ledger) if c.place == "run folder"]
    assert [x.remove_with for x in check.found] == [f"rm -r {folder.path}"]


def test_a_dangling_link_in_the_folders_place_is_told(folder: RunFolder, ledger: Ledger) -> None:
    folder.remove()
    folder.path.symlink_to("/nowhere")
    assert states(folder, ledger)["run folder"] == "left"


def listener(start: Start, address: str, env: dict[str, str] | None = None) -> tuple[subprocess.Popen[bytes], int]:
    process = start(sys.executable, "-IS", "-c", LISTEN, address, "0", env=env, stdout=subprocess.PIPE)
    assert process.stdout
    return process, int(process.stdout.readline())


def test_a_port_of_the_runs_process_is_left(folder: RunFolder, ledger: Ledger, start: Start) -> None:
    process, port = listener(start, "127.0.0.1", {RUN_ENV: folder.run_id})
    ledger.intent("node.start", ports={"raylet": port})
    (check,) = [c for c in inventory.look(folder, ledger) if c.place == "listening ports"]
    assert [(x.name, x.remove_with) for x in check.found] == [(f"127.0.0.1:{port}", f"kill -9 {process.pid}")]


def test_a_port_that_somebody_else_took_since_is_not(folder: RunFolder, ledger: Ledger, start: Start) -> None:
    _, port = listener(start, "127.0.0.1")
    ledger.intent("node.start", ports={"raylet": port})
    assert states(folder, ledger)["listening ports"] == "none"


def test_a_listener_of_the_run_on_its_own_addresses_is_left(folder: RunFolder, ledger: Ledger, start: Start) -> None:
    listener(start, subnet_of(folder.run_id) + "3", {RUN_ENV: folder.run_id})
    assert states(folder, ledger)["listening ports"] == "left"


def test_each_run_has_addresses_of_its_own() -> None:
    subnets = {subnet_of(f"dh-{n:010}") for n in range(500)}
    assert len(subnets) > 490
    for subnet in subnets:
        socket.inet_aton(subnet + "2")
        assert 16 <= int(subnet.split(".")[1]) <= 249
