"""The whole life of a run: up, 0 to 2 workers and back to 0, train, train again, down; nothing secret anywhere."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import pytest

from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.processes import wait_until
from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.record import RunRecord
from dhctl.infra.refusal import probe_refusal
from dhctl.stacks.targets import target_for
from e2e.driver import Dhctl, assert_gone

CANARY = "canary-9c1f27d0a4"


def _workers(record: RunRecord) -> int:
    with target_for(record.spec.target).connect(record) as connection:
        return len(alive_nodes(connection)) - 1


def _files_with(secrets: list[str], folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "token":
            text = _plain(path.read_bytes()).decode(errors="replace")
            found += [f"{path}: {secret[:12]}..." for secret in secrets if secret in text]
    return found


def _plain(content: bytes) -> bytes:
    """The engine's own logs are compressed."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _processes_with(secret: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if secret in path.read_bytes().decode(errors="replace"):
                found.append(str(path))
        except OSError:
            continue
    return found


def test_whole_life(dhctl: Dhctl) -> None:
    dhctl.env["AWS_SECRET_ACCESS_KEY"] = CANARY
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    folder = RunFolder(scratch_root(record.spec), record.run_id)
    token = folder.token.read_text()
    assert stat.S_IMODE(folder.token.stat().st_mode) == 0o600
    assert _workers(record) == 0

    trained = dhctl("train", "pair", "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    events = [json.loads(line) for line in trained.stdout.splitlines()]
    summary = events[-1]
    assert summary["status"] == "SUCCEEDED"
    assert len(summary["result"]["nodes"]) == 2, "the tasks ran on two workers"
    assert summary["result"]["seen"] == {
        "DHCTL_RUN_ID": record.run_id,
        "DHCTL_OUTPUT": record.output,
        "RAY_AUTH_TOKEN": None,
    }
    assert any(e["event"] == "JobProgressed" and e["stage"] == "tasks" for e in events)
    assert max(e["alive"] for e in events if e["event"] == "NodeChanged") == 2
    assert "not utf-8: ��" in (record.job_dir(1) / "driver.log").read_text()
    metrics = [json.loads(line) for line in (record.job_dir(1) / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [{"stage": "tasks", "step": 2, "of": 2, "unit": "task", "nodes": 2.0}]

    # the second idle node sometimes leaves one time-out later than the first
    assert wait_until(lambda: _workers(record) == 0, 2 * 4 + 20, every_s=0.5), "workers do not leave when idle"
    with target_for(record.spec.target).connect(record) as connection:
        assert [p.door for p in probe_refusal(connection) if not p.refused] == []

    state_files = [p for p in (record.engine_dir / "state").rglob("*") if p.is_file()]
    assert state_files, "the state lies where it is searched"
    assert _files_with([token, CANARY], folder.path) == []
    assert _processes_with(token) == []

    down = dhctl("down", "pair", "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    receipt = json.loads(down.stdout.splitlines()[-1])
    assert receipt["clean"] is True
    assert receipt["created"] == {"run folders": 1, "tokens": 1, "heads": 1, "workers": 2}
    assert_gone(record)
    assert _files_with([token, CANARY], dhctl.home) == []
    for shown in (up, trained, down):
        assert token not in shown.stdout + shown.stderr

    again = dhctl("down", "pair")
    assert again.returncode == 0
    late = dhctl("train", "pair")
    assert late.returncode == 1
    assert "is not up but clean" in late.stderr


@pytest.mark.thorough
def test_workers_that_are_always_kept_and_the_cap(dhctl: Dhctl) -> None:
    workers = {"min": 1, "max": 1, "memory": "512MiB", "idle_timeout": "2s"}
    up = dhctl("up", dhctl.spec("pair", workers=workers))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    assert _workers(record) == 1
    trained = dhctl("train", "pair", "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert len(json.loads(trained.stdout.splitlines()[-1])["result"]["nodes"]) == 1, "the cap of one worker holds"
    assert _workers(record) == 1
    assert dhctl("down", record.run_id).returncode == 0


@pytest.mark.parametrize(
    ("job", "options", "told"),
    [
        ("crash", {}, "exit code 7"),
        pytest.param("hang", {"timeout": "6s"}, "raise job.timeout", marks=pytest.mark.thorough),
    ],
)
def test_run_with_a_job_that_fails(dhctl: Dhctl, job: str, options: dict[str, str], told: str) -> None:
    ended = dhctl("run", dhctl.spec(job, job=options))
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert told in ended.stderr
    assert "clean: nothing is left" in ended.stdout
    assert_gone(dhctl.record())
