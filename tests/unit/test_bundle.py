"""What is sent to the cluster as a job."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.bundle import LAUNCHER, stage
from dhctl.infra.errors import RefusedError, StateFolderError
from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from unit.fakes import make_record

RAY = {"RAY_ADDRESS": "127.1.2.2:6379"}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    for name in ("main.py", "lib/net.py", ".git/config", "lib/__pycache__/net.pyc", ".venv/bin/python", "data.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def own(home: Home, code: Path, **changes: Any) -> RunRecord:
    job = {"folder": str(code), "entrypoint": "python main.py --name 'a b'", "timeout": "90s", **changes.pop("job", {})}
    return make_record(home, job=job, **changes)


def test_ones_own_job_is_copied_without_what_is_not_code(home: Home, code: Path) -> None:
    sent = stage(own(home, code), 1, RAY)
    names = {str(p.relative_to(sent.folder)) for p in sent.folder.rglob("*") if p.is_file()}
    assert names == {"main.py", "lib/net.py", "data.csv", LAUNCHER}
    assert sent.runtime_env["working_dir"] == str(sent.folder)


def test_the_launcher_gets_the_command_and_its_time(home: Home, code: Path) -> None:
    sent = stage(own(home, code), 1, RAY)
    words = ["python", "-u", LAUNCHER, "--timeout", "90", "--tell-environment", "--", "python main.py --name 'a b'"]
    assert shlex.split(sent.entrypoint) == words


def test_a_job_finds_its_run_in_the_environment(home: Home, code: Path) -> None:
    record = own(home, code, data="s3://b/d", workers={"max": 3, "cpus": 2}, job={"params": {"seed": 7}})
    env = stage(record, 1, RAY).runtime_env["env_vars"]
    wanted = {
        "DHCTL_RUN_ID": record.run_id,
        "DHCTL_DATA": "s3://b/d",
        "DHCTL_OUTPUT": record.output,
        "DHCTL_WORKERS": "3",
        "DHCTL_WORKERS_MIN": "3",
        "DHCTL_CLUSTER_WORKERS": "3",
        "DHCTL_WORKER_CPUS": "2",
        "DHCTL_WORKER_GPUS": "0",
        "RAY_ADDRESS": "127.1.2.2:6379",
    }
    assert {k: env[k] for k in wanted} == wanted
    assert json.loads(env["DHCTL_JOB_PARAMS"]) == {"seed": 7}


def test_an_elastic_job_finds_its_bounds(home: Home, code: Path) -> None:
    record = own(home, code, workers={"max": 5}, job={"workers": {"min": 2, "max": 4}})
    env = stage(record, 1, RAY).runtime_env["env_vars"]
    assert [env[f"DHCTL_{name}"] for name in ("WORKERS_MIN", "WORKERS", "CLUSTER_WORKERS")] == ["2", "4", "5"]


def test_the_users_environment_is_kept_but_does_not_hide_the_runs(home: Home, code: Path) -> None:
    theirs = {"env_vars": {"SEED": 7, "DHCTL_OUTPUT": "/elsewhere", "RAY_ADDRESS": "auto"}, "pip": ["attrs"]}
    record = own(home, code, job={"runtime_env": theirs})
    runtime_env = stage(record, 1, RAY).runtime_env
    assert runtime_env["pip"] == ["attrs"]
    assert runtime_env["env_vars"]["SEED"] == "7"
    assert runtime_env["env_vars"]["DHCTL_OUTPUT"] == record.output
    assert runtime_env["env_vars"]["RAY_ADDRESS"] == "127.1.2.2:6379"
    assert all(isinstance(v, str) for v in runtime_env["env_vars"].values())


def test_a_job_that_comes_with_dhctl_is_sent_as_its_package(home: Home) -> None:
    sent = stage(make_record(home, job={"name": "prostate"}, data="phantoms"), 1, RAY)
    assert (sent.folder / "dhctl" / "ray_jobs" / "prostate" / "__main__.py").is_file()
    assert (sent.folder / LAUNCHER).is_file()
    assert not list(sent.folder.rglob("__pycache__"))
    assert "python -m dhctl.ray_jobs.prostate" in sent.entrypoint


def test_each_job_of_a_run_keeps_what_it_ran(home: Home, code: Path) -> None:
    record = own(home, code)
    first = stage(record, 1, RAY)
    (code / "main.py").write_text("changed")
    second = stage(record, 2, RAY)
    assert (first.folder / "main.py").read_text() == "main.py"
    assert (second.folder / "main.py").read_text() == "changed"


def test_a_stage_that_was_broken_off_is_done_again(home: Home, code: Path) -> None:
    record = own(home, code)
    (record.job_dir(1) / "bundle" / "lib").mkdir(parents=True)
    assert (stage(record, 1, RAY).folder / "main.py").is_file()


def test_a_link_to_nowhere_is_left_out(home: Home, code: Path) -> None:
    (code / "weights.pt").symlink_to("/nowhere/weights.pt")
    sent = stage(own(home, code), 1, RAY)
    assert not (sent.folder / "weights.pt").is_symlink()
    assert (sent.folder / "main.py").is_file()


def test_a_file_that_cannot_be_copied_is_named(home: Home, code: Path) -> None:
    os.mkfifo(code / "pipe")
    with pytest.raises(RefusedError, match=r"job\.folder cannot be copied: .*pipe.*; make it readable or take it out"):
        stage(own(home, code), 1, RAY)


def test_a_full_disk_is_told_as_such(home: Home, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = own(home, code)
    monkeypatch.setattr("shutil.copyfile", _no_space)
    with pytest.raises(StateFolderError, match="no space left"):
        stage(record, 1, RAY)


def _no_space(*paths: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_home_inside_the_jobs_folder_is_not_copied_into_itself(code: Path) -> None:
    record = own(Home(code / "dhctl-home"), code)
    sent = stage(record, 1, RAY)
    assert (sent.folder / "main.py").is_file()
    assert not (sent.folder / "dhctl-home").exists()
