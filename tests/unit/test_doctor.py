"""What `dhctl doctor` says of bytecode: who pays for compiling, and what ends it."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

import pytest

from dhctl.infra import doctor
from dhctl.infra.doctor import Finding, examine
from dhctl.infra.home import Home


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that was never imported, taken for Ray."""
    folder = tmp_path / "site" / "notray"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    ask = doctor._bytecode
    monkeypatch.setattr(doctor, "_bytecode", lambda _: ask("notray"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


def told(home: Home) -> Finding:
    return next(found for found in examine(home) if found.what == "Ray's bytecode")


def test_where_nothing_is_compiled_and_may_not_be_the_command_is_told(package: Path, home: Home) -> None:
    found = told(home)
    assert (found.ok, found.needed) == (False, False)
    assert "PYTHONDONTWRITEBYTECODE is set" in found.told
    command = found.told.rpartition("run ")[2]
    assert command == f"{sys.executable} -m compileall -q {package.parent}"
    assert not (package / "__pycache__").exists()  # looking wrote nothing


def test_compiled_is_compiled(package: Path, home: Home) -> None:
    compileall.compile_dir(package.parent, quiet=1)
    assert (told(home).ok, told(home).told) == (True, "compiled")


def test_who_may_write_it_needs_no_command(package: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert (told(home).ok, told(home).told) == (True, "compiled by the first process")


def test_what_is_not_there_is_not_compiled(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = doctor._bytecode
    monkeypatch.setattr(doctor, "_bytecode", lambda _: ask("no_such_package"))
    assert (told(home).ok, told(home).told) == (False, "no_such_package is not installed")
