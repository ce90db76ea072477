"""The journal: what was written is there, whole, in order, whoever wrote and whatever killed them."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dhctl.infra import ledger as ledger_module
from dhctl.infra.ledger import Entry, Ledger, last

WRITERS, LINES = 3, 25
WRITER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("ledger", sys.argv[1])
module = sys.modules["ledger"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    module.Ledger(Path(sys.argv[2])).write("writer", "note", me=sys.argv[4], n=n, filler="x" * 3000)
"""
"""Loads the module by its path: the standard library is all it needs, and so a writer starts at once."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "ledger.jsonl")
    found.create()
    return found


def test_entries_come_back_as_they_were_told(ledger: Ledger) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    ledger.intent("head.start", node="head-1", ports={"gcs": 6379})
    ledger.done("head.start", node="head-1")
    ledger.write("probe", "note", refused=["GCS", "Jobs-API é"])
    found = ledger.entries()
    assert [(e.act, e.phase, e.detail) for e in found] == [
        ("head.start", "intent", {"node": "head-1", "ports": {"gcs": 6379}}),
        ("head.start", "done", {"node": "head-1"}),
        ("probe", "note", {"refused": ["GCS", "Jobs-API é"]}),
    ]
    assert before <= found[0].at <= found[-1].at <= datetime.now(UTC)


def test_an_act_has_its_intent_on_disk_before_it_begins(ledger: Ledger) -> None:
    with ledger.act("folder.create", path="/x") as outcome:
        assert [(e.act, e.phase) for e in Ledger(ledger.path).entries()] == [("folder.create", "intent")]
        outcome["made"] = 1
    assert ledger.entries()[-1].phase == "done"
    assert ledger.entries()[-1].detail == {"path": "/x", "made": 1}


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt("stop")])
def test_an_act_that_fails_says_why(ledger: Ledger, error: BaseException) -> None:
    with pytest.raises(type(error)), ledger.act("stack.up", run="dh-1"):
        raise error
    assert [e.phase for e in ledger.entries()] == ["intent", "failed"]
    assert ledger.entries()[-1].detail == {"reason": f"{type(error).__name__}: {error}", "run": "dh-1"}


@pytest.mark.parametrize(
    "torn", ['{"at":"2026-', '{"at":"2026-01-01T00:00:00+00:00","act":"x"', "\x00\x00", "[]", '"x"']
)
def test_a_torn_last_line_is_passed_over_and_the_next_line_is_whole(ledger: Ledger, torn: str) -> None:
    ledger.done("first")
    with ledger.path.open("a") as file:
        file.write(torn)
    assert [e.act for e in ledger.entries()] == ["first"]
    ledger.done("second")
    ledger.done("third")
    assert [e.act for e in ledger.entries()] == ["first", "second", "third"]


def test_a_line_of_broken_text_is_passed_over(ledger: Ledger) -> None:
    ledger.done("first")
    with ledger.path.open("ab") as file:
        file.write(b'{"at":"\xff\xfe\n{"at":5,"act":"x","phase":"note"}\n')
    ledger.done("second")
    assert [e.act for e in ledger.entries()] == ["first", "second"]


def test_it_is_private_and_made_only_once(ledger: Ledger) -> None:
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        ledger.create()


def test_writing_to_a_ledger_that_is_gone_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ledger(tmp_path / "gone").done("x")
    assert Ledger(tmp_path / "gone").entries() == []
    assert not (tmp_path / "gone").exists()


def test_each_line_and_the_new_file_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.create()
    assert synced == [tmp_path.stat().st_ino]
    ledger.done("x")
    assert synced[1:] == [ledger.path.stat().st_ino]


def test_writers_in_several_processes_do_not_tear_each_others_lines(ledger: Ledger) -> None:
    words = [sys.executable, "-IS", "-c", WRITER, ledger_module.__file__, str(ledger.path), str(LINES)]
    writers = [subprocess.Popen([*words, str(n)], stdin=subprocess.PIPE, text=True) for n in range(WRITERS)]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.close()
    assert [w.wait(20) for w in writers] == [0] * WRITERS
    found = ledger.entries()
    assert len(ledger.path.read_text().splitlines()) == len(found) == WRITERS * LINES
    for writer in range(WRITERS):
        assert [e.detail["n"] for e in found if e.detail["me"] == str(writer)] == list(range(LINES))


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this while inside, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_without_any_room_is_an_error(ledger: Ledger) -> None:
    ledger.done("first")
    with largest_file(ledger.path.stat().st_size), pytest.raises(OSError, match="too large"):
        ledger.intent("head.start")
    assert [e.act for e in ledger.entries()] == ["first"]


def test_what_ends_something_goes_on_without_the_journal(ledger: Ledger) -> None:
    ended = []
    with largest_file(ledger.path.stat().st_size), ledger.ending("node.stop", node="w-1"):
        ended.append("w-1")
    assert ended == ["w-1"]
    assert ledger.entries() == []
    assert Ledger(ledger.path.with_name("gone")).note("x") is False
    with pytest.raises(ValueError), ledger.ending("node.stop"):
        raise ValueError("why")
    assert [(e.phase, e.detail) for e in ledger.entries()] == [
        ("intent", {}),
        ("failed", {"reason": "ValueError: why"}),
    ]


def test_a_line_with_too_little_room_is_an_error(ledger: Ledger) -> None:
    ledger.done("first")
    with largest_file(ledger.path.stat().st_size + 20), pytest.raises(OSError, match="too large"):
        ledger.intent("head.start")


def test_last_finds_the_newest_of_an_act() -> None:
    at = datetime.now(UTC)
    entries = [Entry(at, "up", "intent", {"n": 1}), Entry(at, "up", "done", {"n": 2}), Entry(at, "job", "intent")]
    assert last(entries, "up") == entries[1]
    assert last(entries, "up", "intent") == entries[0]
    assert last(entries, "up", "failed") is None
    assert last(entries, "down") is None


def test_a_line_is_one_line_of_json() -> None:
    line = Entry(datetime(2026, 7, 1, tzinfo=UTC), "job", "note", {"text": "a\nb\u2028c"}).to_line()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert json.loads(line)["text"] == "a\nb\u2028c"
    assert Entry.from_line(line).detail == {"text": "a\nb\u2028c"}
