"""`dhctl new job`: what it makes, and what it refuses. tests/jobs and tests/e2e run what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dhctl.cli.main import run_group
from dhctl.infra.errors import ExitCode, RefusedError
from dhctl.infra.home import Home
from dhctl.infra.job_template.write import new_job
from dhctl.infra.spec_file import load_spec

MADE = {".gitignore", "README.md", "data/samples.csv", "job/main.py", "job/task.py", "my-job.yaml", "test_job.py"}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_job(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_group(["new", "job", "my-job"]) == ExitCode.DONE
    assert "my-job is made: `pytest` in it tests the job" in capsys.readouterr().out
    place = tmp_path / "my-job"
    assert files(place) == MADE
    spec = load_spec(place / "my-job.yaml")
    assert (spec.name, spec.job.folder, spec.data) == ("my-job", str(place / "job"), str(place / "data"))
    rows = (place / "data" / "samples.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("patient,x,y,label", 241)
    assert not [path for path in place.rglob("*.*") if path.is_file() and "{{" in path.read_text()]


def test_into_a_folder_that_is_made(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_group(["new", "job", "a1", "--folder", str(tmp_path / "jobs" / "own"), "--json"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["job"], told["folder"]) == ("a1", str(tmp_path / "jobs" / "own" / "a1"))


def test_its_code_is_formatted_and_clean(tmp_path: Path) -> None:
    place = new_job("my-job", tmp_path)
    for verb in (["format", "--check"], ["check", "--select", "E,F,I,B,UP,RUF"]):
        command = [sys.executable, "-m", "ruff", *verb, "--isolated", "--line-length", "120", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["My-Job", "-a", "a_b", "a" * 41, "../a", "a/b", "", "1a", "prostate", "a\n"])
def test_a_name_that_does_not_do(name: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_group(["new", "job", "--folder", str(tmp_path / "jobs"), "--", name]) == ExitCode.USAGE
    assert "name of a job" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


def test_a_folder_that_is_there_is_left_as_it_is(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.py").write_text("years of it")
    assert run_group(["new", "job", "mine", "--folder", str(tmp_path)]) == ExitCode.REFUSED
    assert "is there already; choose another name" in capsys.readouterr().err
    assert files(tmp_path / "mine") == {"work.py"}


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(tmp_path / "none")
    with pytest.raises(RefusedError, match="is there already"):
        new_job("mine", tmp_path)


def test_what_was_begun_on_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def full_after_two(path: Path, text: str) -> int:
        written.append(path)
        if len(written) > 2:
            raise OSError(28, os.strerror(28))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", full_after_two)
    with pytest.raises(RefusedError, match="no space left"):
        new_job("mine", tmp_path)
    assert not (tmp_path / "mine").exists()
