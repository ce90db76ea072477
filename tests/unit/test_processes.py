"""Processes with an identity, and stopping exactly them."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

import pytest

from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import ProcessMark, carries_mark, start_ticks, stop_all, wait_until
from unit.conftest import Start

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def mark_of(pid: int) -> ProcessMark:
    mark = ProcessMark.of(pid)
    assert mark
    return mark


def test_a_dead_process_has_no_mark(start: Start) -> None:
    ended = start("true")
    time.sleep(0.05)
    assert ProcessMark.of(ended.pid) is None  # a zombie until somebody waits
    ended.wait()
    assert ProcessMark.of(ended.pid) is None
    assert start_ticks(ended.pid) is None


def test_a_mark_dies_with_its_process(start: Start) -> None:
    process = start("sleep", "60")
    mark = mark_of(process.pid)
    assert mark.alive()
    process.kill()
    process.wait()
    assert not mark.alive()
    assert mark.signal(signal.SIGTERM) is False


@pytest.mark.parametrize("other", [{"ticks": 1}, {"boot": "another boot"}])
def test_another_process_of_the_same_pid_is_never_signalled(start: Start, other: dict[str, int]) -> None:
    process = start("sleep", "60")
    mistaken = replace(mark_of(process.pid), **other)
    assert not mistaken.alive()
    assert mistaken.signal(signal.SIGKILL) is False
    assert stop_all([mistaken], grace_s=0) == []
    assert process.poll() is None


def test_marks_survive_being_stored() -> None:
    me = ProcessMark.me()
    assert ProcessMark.from_dict(me.to_dict()) == me
    assert me.pid == os.getpid()


@pytest.mark.parametrize("body", [None, {}, [], "x", {"pid": 1}, {"pid": "x", "ticks": 1, "boot": "b"}])
def test_what_is_no_mark_is_none(body: object) -> None:
    assert ProcessMark.from_dict(body) is None


def test_stop_all_ends_what_ignores_sigterm(start: Start) -> None:
    stubborn, obedient = start(sys.executable, "-IS", "-c", STUBBORN, stdout=-1), start("sleep", "60")
    assert stubborn.stdout
    stubborn.stdout.readline()
    assert stop_all([mark_of(stubborn.pid), mark_of(obedient.pid)], grace_s=0.1) == []
    assert (stubborn.wait(), obedient.wait()) == (-signal.SIGKILL, -signal.SIGTERM)


def test_the_mark_in_the_environment_is_read_exactly(start: Start) -> None:
    marked = start("sleep", "60", env={RUN_ENV: "dh-aaaabbbbcc"})
    foreign = start("sleep", "60", env={RUN_ENV: "dh-aaaabbbbccc", "NOTE": f"{RUN_ENV}=dh-aaaabbbbcc"})
    wait_until(lambda: carries_mark(marked.pid, "dh-aaaabbbbcc"), 2)  # until it has become `sleep`
    assert carries_mark(marked.pid, "dh-aaaabbbbcc")
    assert not carries_mark(foreign.pid, "dh-aaaabbbbcc")
    marked.kill()
    marked.wait()
    assert not carries_mark(marked.pid, "dh-aaaabbbbcc")


def test_waiting_ends_at_the_deadline() -> None:
    began = time.monotonic()
    assert wait_until(lambda: False, 0.1, every_s=0.01) is False
    assert 0.1 <= time.monotonic() - began < 1
    assert wait_until(lambda: True, 0) is True
