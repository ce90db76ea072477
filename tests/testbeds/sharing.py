"""One testbed for all who use it on this machine: who may start or stop it, and who uses it now."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from testbeds.errors import TestbedError

LOCK_LIMIT_S = 600
VERB_LIMIT_S = 600
KEEP_ENV = "DHCTL_TESTBED_KEEP"


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time, whoever calls. Raises TestbedError when another takes too long."""
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state.with_suffix(".lock"))
    started = time.monotonic()
    try:
        with lock.acquire(timeout=LOCK_LIMIT_S):
            yield
    except Timeout as late:
        waited = time.monotonic() - started
        raise TestbedError(
            f"another process has been starting or stopping the testbed for {waited:.0f} s; wait for it"
        ) from late


@contextmanager
def shared(state: Path) -> Iterator[Callable[[], bool]]:
    """Says for as long as the block lasts that these tests use the testbed; yields whether nobody else's do."""
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.with_suffix(".users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)

        def alone() -> bool:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        yield alone


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a file for as long as the block lasts and the process lives: `is_held` tells everyone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether somebody is in a `held` block of this file."""
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def run_verb(package: str, env: Mapping[str, str], *verb: str) -> str:
    """Stdout of `python -m testbeds.PACKAGE VERB...`, a process of its own: what it starts is then nobody's child."""
    full = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **env}
    command = (sys.executable, "-m", f"testbeds.{package}", *verb)
    done = subprocess.run(
        command, env=full, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=VERB_LIMIT_S, check=False
    )
    if done.returncode:
        pytest.fail(f"the testbed {package}: {' '.join(verb)} failed\n{done.stderr[-3000:]}", pytrace=False)
    return done.stdout.strip()


def skip(why: str) -> None:
    """Skips the test; in CI (CI=true) it fails instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why} (in CI these tests are never skipped)", pytrace=False)
    pytest.skip(why)
