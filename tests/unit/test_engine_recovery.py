"""Engines and plugins that outlived the client that started them, as processes of our own with their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dhctl.infra import engine_recovery, engine_state
from dhctl.infra.engine_recovery import backend_folder, living_processes, pulumi_home, settle, stop_orphans
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from unit.conftest import Start
from unit.fakes import write_lock

SLEEP = "import time; time.sleep(60)"
PLUGIN = (sys.executable, "-c", SLEEP, "-m", "pulumi.dynamic", "127.0.0.1:1")
END_S = 5.0


def ended(process: subprocess.Popen[bytes]) -> bool:
    return wait_until(lambda: process.poll() is not None, END_S)


def marks(*processes: subprocess.Popen[bytes]) -> set[int]:
    return {process.pid for process in processes}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Something that sleeps under the name of a provider's plugin."""
    path = tmp_path / "pulumi-resource-openstack"
    path.symlink_to("/bin/sleep")
    return path


def test_a_plugin_that_its_engine_left_is_ended(record: RunRecord, program: Path, start: Start) -> None:
    env = {RUN_ENV: record.run_id}
    left = [start(*PLUGIN, env=env), start(str(program), "60", env=env)]
    assert wait_until(lambda: {mark.pid for mark in living_processes(record)} == marks(*left), END_S)
    settle(record)
    assert all(map(ended, left))
    assert living_processes(record) == []


def test_what_a_full_disk_tore_does_not_stop_the_engine(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine_state, engine_recovery):
        monkeypatch.setattr(module, "TORN_S", 0.3)
    note = pulumi_home(record) / "workspaces" / "dhctl-1-workspace.json"
    note.parent.mkdir(parents=True)
    note.write_text("")
    lock = write_lock(backend_folder(record), record.run_id, 1, "x")
    lock.write_text("")
    settle(record)
    assert not lock.exists()
    assert not note.exists()
    (removed,) = [entry for entry in record.ledger.entries() if entry.act == "engine.lock"]
    assert removed.detail["removed"] == lock.name


def test_plugins_of_others_and_other_processes_of_the_run_stay(record: RunRecord, program: Path, start: Start) -> None:
    others = [
        start(*PLUGIN, env={RUN_ENV: "dh-another000"}),
        start(str(program), "60", env={RUN_ENV: ""}),
        start(sys.executable, "-c", SLEEP, "pulumi", env={RUN_ENV: record.run_id}),
    ]
    assert stop_orphans(record) == []
    assert living_processes(record) == []
    assert [process.poll() for process in others] == [None, None, None]
