"""What every node does with its processes: keeps them, ends them, ends the autoscaler for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dhctl.infra.node import stop, watched
from dhctl.infra.node.layout import NodeFolder, write_json
from dhctl.infra.node.stop import start_ticks, stop_autoscaler
from dhctl.infra.node.watched import Watched
from unit.node_fakes import Clock

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
Eventually = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    made = NodeFolder(tmp_path / "node")
    made.make()
    return made


# --- one process


@pytest.fixture
def ended() -> Iterator[list[Watched]]:
    """Ends what a test watched."""
    kept: list[Watched] = []
    yield kept
    for one in kept:
        if one.process:
            watched.stop(one.process, 0.1)


def test_a_process_that_ends_is_started_again_after_longer_and_longer_pauses(
    tmp_path: Path, ended: list[Watched], eventually: Eventually
) -> None:
    clock = Clock()
    one = Watched(["/bin/sh", "-c", "exit 1"], dict(os.environ), tmp_path / "log", clock=clock.monotonic)
    ended.append(one)
    pauses = []
    for _ in range(7):
        assert one.keep()
        process = one.process
        assert process
        process.wait(5)
        pause = 0
        while not one.keep():
            clock.now += 1
            pause += 1
            assert pause < 100
        pauses.append(pause)
        assert one.process
        one.process.wait(5)
        one.process = None
        one._due = clock.now
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


def test_one_whose_work_is_done_is_not_started_again(tmp_path: Path, ended: list[Watched]) -> None:
    clock = Clock()
    one = Watched(["/bin/true"], dict(os.environ), tmp_path / "log", clock=clock.monotonic)
    ended.append(one)
    assert one.keep()
    assert one.process
    one.process.wait(5)
    clock.now += 1000
    assert not one.keep()


def test_a_process_dies_with_the_agent_unless_it_survives(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], eventually: Eventually
) -> None:
    code = "import os, sys, time; from pathlib import Path; from dhctl.infra.node.watched import spawn\n"
    code += f"a = spawn({SLEEP!r}, {{}}, Path('log')); b = spawn({SLEEP!r}, {{}}, Path('log'), survives=True)\n"
    code += "Path('pids').write_text(f'{a.pid} {b.pid} '); time.sleep(60)"
    agent = start(sys.executable, "-c", code, cwd=tmp_path)
    pids = tmp_path / "pids"
    eventually(lambda: pids.exists() and pids.read_text().endswith(" "), 10)
    dies, survives = map(int, pids.read_text().split())
    agent.kill()
    agent.wait(5)
    eventually(lambda: not start_ticks(dies))
    assert start_ticks(survives)
    os.kill(survives, 9)


# --- the end of the autoscaler


def test_nothing_new_starts_and_the_autoscaler_is_ended(
    folder: NodeFolder, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start(*SLEEP)
    write_json(folder.agent, {"monitor": {"pid": process.pid, "ticks": start_ticks(process.pid)}})
    stop_autoscaler(folder)
    assert folder.stopping.exists()
    assert process.wait(5) == -signal.SIGTERM
    stop_autoscaler(folder)


def test_an_autoscaler_that_ignores_sigterm_is_killed(
    folder: NodeFolder,
    start: Callable[..., subprocess.Popen[bytes]],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(stop, "GRACE_S", 0.1)
    code = "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    code += "pathlib.Path('deaf').touch(); time.sleep(60)"
    process = start(sys.executable, "-c", code, cwd=tmp_path)
    eventually((tmp_path / "deaf").exists)
    write_json(folder.agent, {"monitor": {"pid": process.pid, "ticks": start_ticks(process.pid)}})
    stop_autoscaler(folder)
    assert process.wait(5) == -signal.SIGKILL


def test_the_module_stops_this_nodes_autoscaler(
    folder: NodeFolder, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start(*SLEEP)
    write_json(folder.agent, {"monitor": {"pid": process.pid, "ticks": start_ticks(process.pid)}})
    env = {**os.environ, "DHCTL_NODE_HOME": str(folder.path)}
    subprocess.run([sys.executable, "-m", stop.STOP_MODULE], env=env, timeout=30, check=True)
    assert process.wait(5) == -signal.SIGTERM


def test_another_process_of_the_same_number_is_left_alone(
    folder: NodeFolder, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start(*SLEEP)
    write_json(folder.agent, {"monitor": {"pid": process.pid, "ticks": 1}})
    stop_autoscaler(folder)
    assert process.poll() is None
