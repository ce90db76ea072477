"""The supervisor of one node, with real small processes: what it started never outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.local import supervisor
from dhctl.infra.processes import start_ticks
from unit.conftest import Start

FAR = 4e9
DAEMON = """
# Forks twice and starts a session of its own, as daemons do to get away; SIGTERM does not end it.
import os, signal, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(float(sys.argv[2]))
"""

Supervise = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def supervise(start: Start) -> Supervise:
    def starting(*command: str, until: float = FAR, grace_s: float = 0.3, restart: bool = False) -> object:
        words = [sys.executable, "-I", "-S", supervisor.__file__, "--run", "dh-aaaabbbbcc", "--node", "w-1"]
        words += ["--grace", str(grace_s), "--until", str(until), *["--restart"] * restart, "--"]
        return start(*words, *command)

    return starting  # type: ignore[return-value]


def daemon(pid_file: Path, lives_s: float) -> list[str]:
    return [sys.executable, "-IS", "-c", DAEMON, str(pid_file), str(lives_s)]


def stubborn(pid_file: Path) -> list[str]:
    """A command that ignores SIGTERM."""
    code = "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN)"
    code += "; open(sys.argv[1], 'w').write(str(os.getpid()))"
    return [sys.executable, "-IS", "-c", f"{code}; time.sleep(60)", str(pid_file)]


def gone(pid: int) -> Callable[[], bool]:
    return lambda: start_ticks(pid) is None


@pytest.fixture
def pid_file(tmp_path: Path, eventually: Callable[..., None]) -> Callable[[], int]:
    def reading() -> int:
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        return int((tmp_path / "pid").read_text())

    return reading


def test_a_daemon_that_got_away_is_ended_too(tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]) -> None:
    process = supervise(*daemon(tmp_path / "pid", 60))
    escaped = pid_file()
    assert escaped in supervisor.members(process.pid)
    process.terminate()
    assert process.wait(5) == 0
    assert start_ticks(escaped) is None  # by the time it exits, its tree is empty


def test_a_daemon_is_ended_when_the_command_ends_by_itself(
    tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]
) -> None:
    process = supervise(*daemon(tmp_path / "pid", 0.1))
    escaped = pid_file()
    process.wait(5)
    assert start_ticks(escaped) is None


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(
    tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]
) -> None:
    process = supervise(*stubborn(tmp_path / "pid"), grace_s=0.2)
    command = pid_file()
    began = time.monotonic()
    process.terminate()
    process.wait(5)
    assert time.monotonic() - began >= 0.2
    assert start_ticks(command) is None


def test_a_tree_with_nothing_to_save_ends_at_once(
    tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]
) -> None:
    process = supervise(*stubborn(tmp_path / "pid"), grace_s=60)
    command = pid_file()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert start_ticks(command) is None


def test_a_command_may_end_in_good_order(tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]) -> None:
    code = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.02; done"
    process = supervise("/bin/sh", "-c", code)
    pid_file()
    process.terminate()
    process.wait(5)
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_the_tree_ends_at_its_time(tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int]) -> None:
    process = supervise(*daemon(tmp_path / "pid", 60), until=time.time() + 0.3)
    escaped = pid_file()
    assert process.wait(5) == 0
    assert start_ticks(escaped) is None


def test_a_killed_supervisor_takes_its_command_along(
    tmp_path: Path, supervise: Supervise, pid_file: Callable[[], int], eventually: Callable[..., None]
) -> None:
    process = supervise("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    command = pid_file()
    process.send_signal(signal.SIGKILL)
    process.wait(5)
    eventually(gone(command))


@pytest.mark.parametrize(("code", "status"), [("exit 7", 7), ("exit 0", 1)])
def test_a_command_that_ends_by_itself_is_a_failure(supervise: Supervise, code: str, status: int) -> None:
    assert supervise("/bin/sh", "-c", code).wait(5) == status


def test_a_command_is_started_again_where_asked(tmp_path: Path, start: Start, eventually: Callable[..., None]) -> None:
    quicker = (
        f"import sys; sys.path.insert(0, {str(Path(supervisor.__file__).parent)!r}); import supervisor;"
        "supervisor.RESTART_PAUSE_S = 0.05; sys.exit(supervisor.main())"
    )
    options = ["--run", "r", "--node", "n", "--grace", "0.1", "--until", str(FAR), "--restart", "--"]
    process = start(sys.executable, "-IS", "-c", quicker, *options, "/bin/sh", "-c", f"echo x >> {tmp_path}/starts")
    eventually(lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text().count("x") >= 3)
    process.terminate()
    process.wait(5)


def test_the_trees_of_two_supervisors_are_apart(
    tmp_path: Path, supervise: Supervise, eventually: Callable[..., None]
) -> None:
    """A worker's supervisor is started by the autoscaler, so it descends from another supervisor."""
    inner = [sys.executable, "-I", "-S", supervisor.__file__, "--run", "dh-aaaabbbbcc", "--node", "w-2"]
    inner += ["--grace", "0.2", "--until", str(FAR), "--", "sleep", "60"]
    outer = supervise(*inner)
    eventually(lambda: len(supervisor.process_table().keys() & _below(outer.pid)) == 2)
    (node,) = [pid for pid in _below(outer.pid) if supervisor.is_supervisor(pid)]
    assert supervisor.members(outer.pid) == set()
    assert len(supervisor.members(node)) == 1


def _below(root: int) -> set[int]:
    table = supervisor.process_table()
    found = {root}
    while more := {pid for pid, (parent, _) in table.items() if parent in found} - found:
        found |= more
    return found - {root}


def test_it_starts_with_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
