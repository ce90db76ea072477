"""Clients that are killed, interrupted, or that meet each other; leases that end when nobody is there."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from dhctl.infra.local.inventory import owned_processes
from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.record import RunRecord, RunState
from e2e.driver import Dhctl, assert_gone, has


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def _down_is_clean(dhctl: Dhctl, record: RunRecord) -> None:
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert record.state() is RunState.CLEAN
    assert_gone(record)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("lease.start", "done"), id="lease.start.done", marks=pytest.mark.thorough),
        pytest.param(("engine.process", "note"), id="engine.process.note"),
        pytest.param(("head.start", "intent"), id="head.start.intent", marks=pytest.mark.thorough),
        pytest.param(("autoscaler.start", "done"), id="autoscaler.start.done", marks=pytest.mark.thorough),
    ],
)
def test_client_killed_during_up(dhctl: Dhctl, moment: tuple[str, str]) -> None:
    client = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(has(*moment))
    _kill(client)
    _down_is_clean(dhctl, record)


def test_client_killed_during_the_job(dhctl: Dhctl) -> None:
    client = dhctl.start("run", dhctl.spec("hang"))
    record = dhctl.until(_is_hanging)
    _kill(client)
    assert record.state() is RunState.TRAINING
    assert "hanging" in dhctl("logs", record.run_id).stdout
    _down_is_clean(dhctl, record)
    result = json.loads((record.job_dir(1) / "result.json").read_text())
    assert result["status"] == "STOPPED"
    assert "hanging" in _log(record), "the log outlives client and cluster"


@pytest.mark.thorough
def test_a_job_that_ended_unwatched_is_noted_and_the_run_trains_again(dhctl: Dhctl) -> None:
    assert dhctl("up", dhctl.spec("pair")).returncode == 0
    client = dhctl.start("train", "pair")
    record = dhctl.until(has("job", "intent"))
    time.sleep(2)
    _kill(client)
    assert "is training already" in dhctl("train", "pair").stderr
    end = time.monotonic() + 120
    while (again := dhctl("train", "pair")).returncode and time.monotonic() < end:
        assert "is training already" in again.stderr, again.stdout + again.stderr
        time.sleep(1)
    assert again.returncode == 0, again.stdout + again.stderr
    statuses = [json.loads((record.job_dir(n) / "result.json").read_text())["status"] for n in (1, 2)]
    assert statuses == ["SUCCEEDED", "SUCCEEDED"]
    _down_is_clean(dhctl, record)


def _is_hanging(record: RunRecord) -> bool:
    return "hanging" in _log(record)


def _log(record: RunRecord) -> str:
    path = record.job_dir(1) / "driver.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("autoscaler.stop", marks=pytest.mark.thorough),
        "engine.process",
        pytest.param("nodes.stop", marks=pytest.mark.thorough),
    ],
)
def test_client_killed_during_down(dhctl: Dhctl, moment: str) -> None:
    assert dhctl("up", dhctl.spec("pair")).returncode == 0
    record = dhctl.record()
    before = len(record.ledger.entries())
    client = dhctl.start("down", record.run_id)
    dhctl.until(lambda r: any(e.act == moment for e in r.ledger.entries()[before:]))
    _kill(client)
    _down_is_clean(dhctl, record)


def test_lease_ends_with_the_client_dead(dhctl: Dhctl) -> None:
    client = dhctl.start("run", dhctl.spec("hang", lease="40s"))
    record = dhctl.until(_is_hanging)
    _kill(client)
    dhctl.until(lambda r: r.state() is RunState.CLEAN, timeout_s=120)
    receipt = json.loads(record.receipt_path.read_text())
    assert receipt["clean"] is True
    assert receipt["reason"] == "lease ended"
    time.sleep(1.5)  # the keeper leaves when it sees the receipt
    assert_gone(record)


@pytest.mark.thorough
def test_lease_ends_under_a_living_client(dhctl: Dhctl) -> None:
    ended = dhctl("run", dhctl.spec("hang", lease="35s"))
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "lease" in ended.stderr
    assert_gone(dhctl.record())


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.thorough),
        pytest.param(signal.SIGHUP, marks=pytest.mark.thorough),
    ],
)
def test_one_signal_during_the_job_stops_it_and_takes_down(dhctl: Dhctl, signum: signal.Signals) -> None:
    client = dhctl.start("run", dhctl.spec("hang"))
    record = dhctl.until(_is_hanging)
    client.send_signal(signum)
    shown, _ = client.communicate(timeout=240)
    assert client.returncode == 130, shown
    assert "stopping the job" in shown
    assert "clean: nothing is left" in shown
    assert_gone(record)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("engine.process", "note"), id="engine.process.note", marks=pytest.mark.thorough),
        pytest.param(("head.start", "done"), id="head.start.done"),
    ],
)
def test_ctrl_c_during_up(dhctl: Dhctl, moment: tuple[str, str]) -> None:
    client = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(has(*moment))
    client.send_signal(signal.SIGINT)
    shown, _ = client.communicate(timeout=240)
    assert client.returncode == 130, shown
    assert record.state() is RunState.CLEAN
    assert_gone(record)


@pytest.mark.thorough
def test_ctrl_c_twice_stops_now_and_names_the_command(dhctl: Dhctl) -> None:
    client = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(has("head.start", "done"))
    client.send_signal(signal.SIGINT)
    time.sleep(0.3)
    client.send_signal(signal.SIGINT)
    shown, _ = client.communicate(timeout=10)
    assert client.returncode == 5, shown
    assert f"dhctl down {record.run_id}" in shown
    _down_is_clean(dhctl, record)


@pytest.mark.thorough
def test_reader_of_the_output_leaves(dhctl: Dhctl) -> None:
    client = dhctl.start("run", dhctl.spec("crash"))
    assert client.stdout is not None
    client.stdout.readline()
    client.stdout.close()
    assert client.wait(240) == 4
    assert dhctl.record().state() is RunState.CLEAN


@pytest.mark.thorough
def test_two_downs_at_once(dhctl: Dhctl) -> None:
    assert dhctl("up", dhctl.spec("pair")).returncode == 0
    record = dhctl.record()
    both = [dhctl.start("down", record.run_id) for _ in range(2)]
    shown = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], shown
    assert_gone(record)


@pytest.mark.thorough
def test_down_stops_a_client_that_is_bringing_the_run_up(dhctl: Dhctl) -> None:
    client = dhctl.start("up", dhctl.spec("pair"))
    record = dhctl.until(has("head.start", "intent"))
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert client.wait(60) == 130
    assert_gone(record)


@pytest.mark.thorough
def test_a_killed_worker_and_a_killed_autoscaler_are_replaced(dhctl: Dhctl) -> None:
    workers = {"min": 1, "max": 1, "memory": "512MiB", "idle_timeout": "60s"}
    assert dhctl("up", dhctl.spec("pair", workers=workers)).returncode == 0
    record = dhctl.record()
    folder = RunFolder(scratch_root(record.spec), record.run_id)
    first = next(folder.nodes.glob("w-*.json")).stem
    for name in ("autoscaler", first):
        pid = (
            json.loads((folder.path / "autoscaler.json").read_text())["pid"]
            if name == "autoscaler"
            else _pid(folder, first)
        )
        child = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()[0]
        subprocess.run(["kill", "-9", child], check=True)
    dhctl.until(lambda r: any(p.stem != first for p in folder.nodes.glob("w-*.json")), timeout_s=60)
    assert owned_processes(folder, record.ledger)
    _down_is_clean(dhctl, record)


def _pid(folder: RunFolder, node: str) -> int:
    return int(json.loads((folder.nodes / f"{node}.json").read_text())["process"]["pid"])
