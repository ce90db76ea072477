"""Engines and plugins that outlived the client that started them, as processes of our own with their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dhctl.infra.engine_recovery import living_processes, settle, stop_orphans
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from unit.conftest import Start

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


def test_plugins_of_others_and_other_processes_of_the_run_stay(record: RunRecord, program: Path, start: Start) -> None:
    others = [
        start(*PLUGIN, env={RUN_ENV: "dh-another000"}),
        start(str(program), "60", env={RUN_ENV: ""}),
        start(sys.executable, "-c", SLEEP, "pulumi", env={RUN_ENV: record.run_id}),
    ]
    assert stop_orphans(record) == []
    assert living_processes(record) == []
    assert [process.poll() for process in others] == [None, None, None]
