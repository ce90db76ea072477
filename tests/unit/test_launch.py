"""The launcher that runs a job's command on the cluster: timeout, exit status, text that is always UTF-8."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.processes import start_ticks
from dhctl.ray_jobs import launch
from unit.conftest import Start

QUICK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("launch", sys.argv.pop(1))
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
launch.GRACE_S = 0.15
sys.exit(launch.main())
"""
"""The launcher with a shorter grace, in a Python that starts quickly."""

Launch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def launched(start: Start, tmp_path: Path) -> Launch:
    def launching(command: str, timeout_s: float = 20) -> object:
        words = [sys.executable, "-IS", "-c", QUICK, launch.__file__, "--timeout", str(timeout_s), "--", command]
        return start(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path)

    return launching  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 7", 7), ("no-such-program-here", 127), ("kill -9 $$", 128 + 9), ("false | true", 0)],
)
def test_the_exit_status_is_the_commands(launched: Launch, command: str, status: int) -> None:
    process = launched(command)
    process.communicate(timeout=10)
    assert process.returncode == status


def test_output_is_utf8_whatever_the_job_prints(launched: Launch) -> None:
    out, _ = launched(r"printf 'gr\303\274n \377\376 caf\351\nno end'; echo err >&2").communicate(timeout=10)
    assert out.decode("utf-8").splitlines()[0] == "grün \ufffd\ufffd caf\ufffd"
    assert "no end" in out.decode("utf-8")
    assert "err" in out.decode("utf-8")


def test_lines_come_as_they_are_printed(launched: Launch) -> None:
    process = launched("echo first; sleep 30")
    assert process.stdout
    assert process.stdout.readline() == b"first\n"
    assert process.poll() is None


def test_quotes_and_expansions_are_the_shells(launched: Launch) -> None:
    out, _ = launched("""X='a  b'; echo "$X" | tr a c""").communicate(timeout=10)
    assert out == b"c  b\n"


def test_a_command_that_hangs_is_stopped(launched: Launch) -> None:
    began = time.monotonic()
    process = launched("trap 'echo bye; exit 3' TERM; while :; do sleep 0.02; done", timeout_s=0.2)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == launch.TIMED_OUT == 124
    assert b"the job was not done after 0 s (job.timeout) and is stopped" in out
    assert b"bye" in out
    assert time.monotonic() - began < 3


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_command_that_ignores_sigterm_is_killed_with_its_children(
    launched: Launch, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    process = launched("trap '' TERM; sleep 60 & echo $$ $! > pids; wait", timeout_s=0.2)
    process.communicate(timeout=10)
    assert process.returncode == 124
    eventually(lambda: all(start_ticks(p) is None for p in pids_in(tmp_path / "pids")))


def test_a_child_that_ignores_sigterm_does_not_outlive_the_timeout(launched: Launch, tmp_path: Path) -> None:
    process = launched("(trap '' TERM; exec sleep 60) & echo $! > pids; wait", timeout_s=0.2)
    process.communicate(timeout=10)
    (child,) = pids_in(tmp_path / "pids")
    assert process.returncode == 124
    assert start_ticks(child) is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_the_whole_group(
    launched: Launch, tmp_path: Path, signum: signal.Signals, eventually: Callable[..., None]
) -> None:
    process = launched("trap 'echo told; exit 5' TERM INT; sleep 60 & echo $! > pids; echo ready; wait; wait")
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    process.send_signal(signum)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (5, b"told\n")
    eventually(lambda: signum is signal.SIGINT or all(start_ticks(p) is None for p in pids_in(tmp_path / "pids")))


def test_a_background_process_that_holds_the_output_does_not_keep_it(launched: Launch) -> None:
    began = time.monotonic()
    process = launched("sleep 60 & echo done")
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5
    assert process.stdout
    assert process.stdout.readline() == b"done\n"
