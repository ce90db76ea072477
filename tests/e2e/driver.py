"""Driving the command `dhctl` as a user does, and looking at the machine afterwards without trusting it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhctl.infra.home import Home
from dhctl.infra.local import inventory
from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.record import RunRecord, all_records

JOBS = Path(__file__).parent / "jobs"
DHCTL = [sys.executable, "-m", "dhctl.cli.main"]


def clean_environment(engine: Path, home: Path) -> dict[str, str]:
    """This process's environment without settings of dhctl, Ray, Pulumi and clouds, with engine and Python first."""
    foreign = ("RAY_", "DHCTL_", "PULUMI_", "OS_", "AWS_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    env["PATH"] = os.pathsep.join([str(engine), str(Path(sys.executable).parent), env["PATH"]])
    return {**env, "DHCTL_HOME": str(home)}


def end_started(command: Dhctl) -> list[RunRecord]:
    """Kills what a test started and left, and takes its runs down; those that were not clean."""
    for process in command.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
        if process.stdout:
            process.stdout.close()
    left = [r for r in command.records() if r.state() != "clean"]
    for record in left:
        command("down", record.run_id)
    return left


@dataclass
class Dhctl:
    """The command, with a home of its own."""

    home: Path
    folder: Path
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *words: str, timeout_s: float = 480) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        command = [*DHCTL, *words]
        return subprocess.run(
            command, env=self.env, cwd=self.folder, text=True, capture_output=True, timeout=timeout_s, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts it and goes on; stdout and stderr together come through the pipe."""
        process = subprocess.Popen(
            [*DHCTL, *words],
            env=self.env,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def spec(self, script: str, **changes: Any) -> str:
        """Writes a spec for one of the small jobs in tests/e2e/jobs; its name."""
        body = {
            "name": script,
            "lease": "10m",
            "workers": {"min": 0, "max": 2, "memory": "512MiB", "idle_timeout": "4s"},
            "job": {"folder": str(JOBS), "entrypoint": f"python {script}.py", **changes.pop("job", {})},
            **changes,
        }
        (self.folder / f"{script}.json").write_text(json.dumps(body))  # JSON is YAML
        return f"{script}.json"

    def records(self) -> list[RunRecord]:
        """All runs of this home, newest first."""
        return all_records(Home(self.home))

    def record(self) -> RunRecord:
        """The newest run."""
        return self.records()[0]

    def until(self, told: Callable[[RunRecord], bool], timeout_s: float = 240) -> RunRecord:
        """Waits for something that the newest run's ledger tells."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            records = self.records()
            if records and told(records[0]):
                return records[0]
            time.sleep(0.05)
        raise AssertionError(
            f"not seen within {timeout_s} s; ledger: {[e.act for e in self.record().ledger.entries()]}"
        )


def has(act: str, phase: str) -> Callable[[RunRecord], bool]:
    """Whether the ledger tells of this."""
    return lambda record: any(e.act == act and e.phase == phase for e in record.ledger.entries())


def assert_trained_on_two(told: str, metric: str, margin: float) -> None:
    """By the lines of a `dhctl run --json`: a metric beyond its baseline by a margin, and two workers at once."""
    events = [json.loads(line) for line in told.splitlines()]
    found = events[-1]["result"]["metric"]
    assert found["name"] == metric
    assert found["value"] > found["baseline"]["value"] + margin
    assert max(e["alive"] for e in events if e["event"] == "NodeChanged") == 2


def assert_cluster_gone(record: RunRecord) -> None:
    """No process of the cluster and no run folder, whatever the receipt says."""
    folder = RunFolder(scratch_root(record.spec), record.run_id)
    assert inventory.owned_processes(folder, record.ledger) == []
    assert not folder.path.exists()


def assert_gone(record: RunRecord) -> None:
    """The cluster is gone, and nothing on the machine names the run any more, the lease keeper neither."""
    assert_cluster_gone(record)
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if record.run_id in line] == []
