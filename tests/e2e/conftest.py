"""Whole runs through the real engine and the real Ray, driven as a user drives them: by the command `dhctl`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from e2e.driver import Dhctl, assert_gone, clean_environment, end_started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def engine_path() -> Path:
    """The folder of the Pulumi CLI that the user of this machine has, installed first if need be."""
    return ensure_engine(default_root(), ignore).parent


@pytest.fixture
def dhctl(tmp_path: Path, engine_path: Path) -> Iterator[Dhctl]:
    """The command in a home of its own. A run in it that is not gone afterwards is taken down, and fails the test."""
    env = clean_environment(engine_path, tmp_path / "home")
    before = _temporary_files()
    command = Dhctl(tmp_path / "home", tmp_path, env)
    yield command
    left = end_started(command)
    assert left == [], "the test left runs that were not taken down"
    for record in command.records():
        assert_gone(record)
    assert _temporary_files() - before == set()
    shutil.rmtree(command.home, ignore_errors=True)


def _temporary_files() -> set[Path]:
    """What Ray, Python's multiprocessing, Pulumi and dhctl may leave in the temp folder."""
    patterns = ("pymp-*", "ray*", "_ray*", "dhctl-*/*", "automation-*", "torch*", "pulumi*")
    return {path for pattern in patterns for path in Path("/tmp").glob(pattern)}
