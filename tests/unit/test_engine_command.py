"""Running the engine's CLI: nothing that happens to the client may hurt it. With a stand-in that behaves as the CLI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pulumi.automation import CommandError

from dhctl.infra import engine_command
from dhctl.infra.engine_command import DetachedPulumiCommand
from dhctl.infra.errors import EngineError
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.processes import ProcessMark, start_ticks
from unit.conftest import Start
from unit.fakes import script

STAND_IN = """
# Stand-in for the Pulumi CLI: takes a lock, works in steps, prints each; at the first SIGINT it finishes its step,
# writes down that it did, and gives the lock back. As the real one it has no handler for SIGPIPE.
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if sys.argv[1:] == ["version"]:
    print("v3.259.0")
    sys.exit()
verb = next(a for a in sys.argv[1:] if not a.startswith("-"))
asked = []
signal.signal(signal.SIGINT, lambda s, f: asked.append(s))
Path("lock").write_text(str(os.getpid()))
Path("seen").write_text("\\n".join([str(os.getsid(0) == os.getpid()), *sorted(os.environ), " ".join(sys.argv[1:])]))
streams = [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)]
Path("streams").write_text("\\n".join(streams))
for step in range(int(os.environ.get("STEPS", "1"))):
    print(f"step {step}", flush=True)
    time.sleep(0.05)
    if asked and "STUBBORN" not in os.environ:
        break
print("winding down", flush=True)
Path("lock").unlink()
Path("ended").write_text(f"after {step + 1} steps, asked {len(asked)} times")
if verb == "fail":
    print("error: no room", file=sys.stderr)
    sys.exit(255)
"""


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return script(tmp_path / "engine" / "bin" / "pulumi", STAND_IN)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work" / "logs").mkdir(parents=True)
    return tmp_path / "work"


def steps(count: int) -> dict[str, str]:
    return {"STEPS": str(count)}


def test_its_output_comes_through_files(binary: Path, work: Path) -> None:
    lines: list[str] = []
    command = DetachedPulumiCommand(binary, logs=work / "logs")
    result = command.run(["up", "--yes"], str(work), steps(2), lines.append)
    assert (result.code, result.stdout, result.stderr) == (0, "step 0\nstep 1\nwinding down\n", "")
    assert lines == ["step 0", "step 1", "winding down"]
    stdin, stdout, stderr = (work / "streams").read_text().splitlines()
    assert stdin == "/dev/null"
    assert Path(stdout).parent == Path(stderr).parent == work / "logs"
    assert list((work / "logs").iterdir()) == []  # only a failure is worth a file


def test_it_has_a_session_of_its_own_and_none_of_the_users_settings(
    binary: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "the user's")
    DetachedPulumiCommand(binary, logs=work / "logs").run(["preview"], str(work), {"PULUMI_BACKEND_URL": "file:///x"})
    own_session, *names, words = (work / "seen").read_text().splitlines()
    assert own_session == "True"
    assert words == "--non-interactive preview"
    assert "PULUMI_BACKEND_URL" in names
    assert "PULUMI_ACCESS_TOKEN" not in names


def test_a_failure_is_raised_and_its_output_kept(binary: Path, work: Path) -> None:
    with pytest.raises(CommandError, match="error: no room"):
        DetachedPulumiCommand(binary, logs=work / "logs").run(["fail"], str(work), {})
    assert {p.suffix for p in (work / "logs").iterdir()} == {".out", ".err"}


def test_after_the_deadline_it_is_stopped_in_good_order(binary: Path, work: Path) -> None:
    command = DetachedPulumiCommand(binary, logs=work / "logs", deadline_s=0.1)
    with pytest.raises(EngineError, match="`pulumi up` was not done after 0 s and was stopped"):
        command.run(["up"], str(work), steps(100))
    assert (work / "ended").read_text().endswith("asked 1 times")
    assert not (work / "lock").exists()


def test_what_does_not_stop_after_the_deadline_is_killed(
    binary: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_command, "STOP_GRACE_S", 0.1)
    command = DetachedPulumiCommand(binary, logs=work / "logs", deadline_s=0.1)
    with pytest.raises(EngineError):
        command.run(["up"], str(work), {**steps(1000), "STUBBORN": "1"})
    assert start_ticks(int((work / "lock").read_text())) is None


def interrupt_when(ready: Callable[[], bool], times: int = 1) -> threading.Thread:
    def sending() -> None:
        end = time.monotonic() + 5
        while not ready() and time.monotonic() < end:
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=sending)
    thread.start()
    return thread


def test_a_request_to_stop_reaches_a_writing_operation_once(binary: Path, work: Path) -> None:
    with Interrupts() as interrupts:
        command = DetachedPulumiCommand(binary, logs=work / "logs", interrupts=interrupts)
        thread = interrupt_when((work / "seen").exists)
        command.run(["up"], str(work), steps(100))
        thread.join()
    assert interrupts.reason == "SIGINT"
    assert (work / "ended").read_text().endswith("asked 1 times")


def test_a_request_to_stop_is_kept_away_from_a_destroy(binary: Path, work: Path) -> None:
    with Interrupts() as interrupts:
        command = DetachedPulumiCommand(binary, logs=work / "logs", interrupts=None)
        thread = interrupt_when((work / "seen").exists)
        command.run(["destroy"], str(work), steps(4))
        thread.join()
    assert interrupts.reason == "SIGINT"
    assert (work / "ended").read_text() == "after 4 steps, asked 0 times"


def test_only_operations_that_write_are_told(binary: Path, work: Path) -> None:
    told: list[tuple[str, ProcessMark]] = []
    command = DetachedPulumiCommand(binary, logs=work / "logs", on_start=lambda verb, mark: told.append((verb, mark)))
    for verb in ("preview", "up", "destroy"):
        command.run([verb], str(work), {})
    assert [verb for verb, _ in told] == ["up", "destroy"]
    assert not any(mark.alive() for _, mark in told)


CLIENT = """
import sys
from pathlib import Path
from dhctl.infra.engine_command import DetachedPulumiCommand
binary, work = map(Path, sys.argv[1:])
DetachedPulumiCommand(binary, logs=work / "logs").run(["up"], str(work), {"STEPS": "6"}, print)
"""


def test_it_finishes_its_work_when_the_client_dies(
    binary: Path, work: Path, start: Start, eventually: Callable[..., None]
) -> None:
    client = start(sys.executable, "-c", CLIENT, str(binary), str(work), stdout=subprocess.PIPE)
    eventually((work / "streams").exists, 20)
    os.killpg(client.pid, signal.SIGKILL)  # as a terminal or a scheduler does: the whole group
    client.wait(5)
    assert (work / "lock").exists()
    eventually((work / "ended").exists)
    assert (work / "ended").read_text() == "after 6 steps, asked 0 times"
    assert not (work / "lock").exists()


def test_a_cli_in_a_folder_of_any_name_is_run(tmp_path: Path, work: Path) -> None:
    binary = script(tmp_path / "opt" / "pulumi" / "pulumi", STAND_IN)  # as the vendor's archive unpacks
    assert DetachedPulumiCommand(binary, logs=work / "logs").run(["preview"], str(work), {}).code == 0
