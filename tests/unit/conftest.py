"""What many unit tests share: a home of one's own, a run, processes that never outlive their test."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dhctl.infra.events import Event
from dhctl.infra.home import HOME_ENV, Home
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.record import RunRecord
from unit.fakes import make_record
from unit.http_cloud import HttpCloud
from unit.http_store import HttpStore

PR_SET_CHILD_SUBREAPER = 36
Start = Callable[..., "subprocess.Popen[bytes]"]


def pytest_configure(config: pytest.Config) -> None:
    """openstacksdk warns whenever a clouds.yaml is read, Pulumi's package of OpenStack of its own older modules."""
    config.addinivalue_line("filterwarnings", "ignore:Support for InfluxDB requires")
    config.addinivalue_line(
        "filterwarnings", r"ignore:openstack\.\S+ has been deprecated in favor of:DeprecationWarning"
    )


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Fails the session when a test leaves a process behind; those whose parent died come to us."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    left = psutil.Process().children(recursive=True)
    psutil.wait_procs(left, timeout=3)
    told = [f"{p.pid} {' '.join(p.cmdline())}" for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert told == [], "tests left processes"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Where dhctl keeps its things in this test; not made yet."""
    root = tmp_path / "home"
    monkeypatch.setenv(HOME_ENV, str(root))
    monkeypatch.delenv(RUN_ENV, raising=False)
    return Home(root)


@pytest.fixture
def record(home: Home, tmp_path: Path) -> RunRecord:
    """A run that was just opened, with a scratch folder of its own."""
    return make_record(home, local={"scratch": str(tmp_path / "scratch")})


@pytest.fixture
def http_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpCloud]:
    """A small cloud that serves, and is the one of the environment's login. No call to it is repeated."""
    from dhctl.infra.openstack import cloud as client  # needs the SDK, which few tests do

    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(client, "RETRIES", 0)
    with HttpCloud().serving() as cloud:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.write_config(tmp_path)))
        monkeypatch.setenv("OS_CLOUD", "small")
        yield cloud


@pytest.fixture
def http_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpStore]:
    """A small object store that serves, and is the one of the environment's keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the keys that it found first
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with HttpStore().serving() as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield store


@pytest.fixture
def told() -> list[Event]:
    """Events, in order: `told.append` is a `Report`."""
    return []


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process in a session of its own; its whole session is killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def starting(*command: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, **options)
        started.append(process)
        return process

    yield starting
    for process in started:
        for member in {*_tree(process.pid), *_session(process.pid)}:
            member.kill()
        process.kill()
        process.wait(5)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _session(pid: int) -> Iterator[psutil.Process]:
    """Also those whose parent died: the session stays."""
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) == pid and process.pid != pid:
                yield process


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something holds."""

    def waiting(holds: Callable[[], object], seconds: float = 5.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"did not come to hold within {seconds} s"
            time.sleep(0.01)

    return waiting
