"""A run's record: its state from its ledger, finding it again, its lock, and files that are never half."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dhctl.infra.errors import ExitCode, RunBusyError, StateFolderError, UnknownRunError
from dhctl.infra.home import Home
from dhctl.infra.ledger import Entry, Phase
from dhctl.infra.record import RunRecord, RunState, all_records, find_record, fold_state, open_record
from unit.conftest import Start
from unit.fakes import hold_lock, make_record, make_spec

Story = list[tuple[str, Phase]]
BORN: Story = [("run", "intent")]
UP: Story = [*BORN, ("up", "intent"), ("stack.up", "done"), ("up", "done")]


@pytest.mark.parametrize(
    ("story", "state"),
    [
        ([], RunState.STARTING),
        (BORN, RunState.STARTING),
        ([*BORN, ("up", "intent"), ("head.start", "done")], RunState.STARTING),
        (UP, RunState.UP),
        ([*UP, ("node.start", "intent"), ("node.start", "done"), ("probe", "note")], RunState.UP),
        ([*BORN, ("up", "intent"), ("up", "failed")], RunState.FAILED),
        ([*UP, ("job", "intent")], RunState.TRAINING),
        ([*UP, ("job", "intent"), ("node.start", "done")], RunState.TRAINING),
        ([*UP, ("job", "intent"), ("job", "done")], RunState.UP),
        ([*UP, ("job", "intent"), ("job", "failed")], RunState.UP),
        ([*UP, ("job", "intent"), ("down", "intent")], RunState.STOPPING),
        ([*UP, ("down", "intent"), ("stack.destroy", "failed")], RunState.STOPPING),
        ([*BORN, ("up", "failed"), ("down", "intent"), ("down", "failed")], RunState.LEFTOVERS),
        ([*UP, ("down", "intent"), ("down", "done", True)], RunState.CLEAN),
        ([*UP, ("down", "intent"), ("down", "done", False)], RunState.LEFTOVERS),
        (
            [*UP, ("down", "intent"), ("down", "done", False), ("down", "intent"), ("down", "done", True)],
            RunState.CLEAN,
        ),
        ([*UP, ("down", "intent"), ("down", "done", True), ("down", "intent")], RunState.STOPPING),
        ([*UP, ("job", "intent"), ("down", "intent"), ("job", "failed")], RunState.STOPPING),
        ([*UP, ("job", "intent"), ("down", "intent"), ("down", "done", True), ("job", "failed")], RunState.CLEAN),
        ([*UP, ("job", "failed"), ("head.recover", "intent"), ("stack.up", "done")], RunState.RECOVERING),
        ([*UP, ("job", "failed"), ("head.recover", "intent"), ("head.recover", "done")], RunState.UP),
        ([*UP, ("job", "failed"), ("head.recover", "intent"), ("head.recover", "failed")], RunState.FAILED),
    ],
)
def test_the_state_is_what_the_newest_telling_line_says(story: list[tuple[Any, ...]], state: RunState) -> None:
    entries = [Entry(datetime.now(UTC), act, phase, {"clean": c[0]} if c else {}) for act, phase, *c in story]
    assert fold_state(entries) is state


def test_the_first_line_is_written_before_anything_else(home: Home) -> None:
    record = make_record(home, lease="2h")
    opened = record.opened()
    assert record.ledger.entries() == [opened]
    assert {k: opened.detail[k] for k in ("run", "format", "dhctl", "name", "target")} == {
        "run": record.run_id,
        "format": 1,
        "dhctl": "0.0",
        "name": "trial",
        "target": "local",
    }
    assert opened.detail["client"]["pid"] == os.getpid()
    assert abs(record.expires_at - opened.at - timedelta(hours=2)) < timedelta(seconds=2)


def test_the_spec_is_kept_as_admitted(home: Home) -> None:
    spec = make_spec(lease="90m", workers={"max": 3, "memory": "1.5GiB"}, output="s3://bucket/out/")
    record = open_record(home, spec, "0.0", {})
    assert RunRecord(home, record.run_id).spec == spec
    assert record.output == f"s3://bucket/out/{record.run_id}"


def test_output_lies_in_the_record_where_the_spec_names_none(record: RunRecord) -> None:
    assert record.output == str(record.folder / "output")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_no_half_record_stays_when_the_ledger_cannot_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    home.prepare()

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateFolderError):
        make_record(home)
    assert list(home.runs.iterdir()) == []


def test_a_damaged_record_is_told_as_such(record: RunRecord) -> None:
    (record.folder / "spec.json").write_text("{")
    with pytest.raises(StateFolderError, match="has no readable spec"):
        _ = RunRecord(record.home, record.run_id).spec
    record.ledger.path.write_text("")
    with pytest.raises(StateFolderError, match="has no readable"):
        record.opened()


def test_records_are_listed_newest_first_and_other_folders_passed_over(home: Home) -> None:
    assert all_records(home) == []
    made = [make_record(home, name=name) for name in ("a", "b", "c")]
    (home.runs / "notes").mkdir()
    (home.runs / "dh-aaaaaaaaaa").mkdir()  # killed before its ledger was there
    assert [r.run_id for r in all_records(home)] == [r.run_id for r in reversed(made)]


def test_a_run_is_found_by_id_prefix_and_name(home: Home) -> None:
    one, two = make_record(home, name="one"), make_record(home, name="two")
    assert find_record(home, one.run_id).run_id == one.run_id
    assert find_record(home, two.run_id[:8]).run_id == two.run_id
    assert find_record(home, "one").run_id == one.run_id


def test_the_newest_living_run_of_a_name_wins(home: Home) -> None:
    first, second, third = (make_record(home, name="same") for _ in range(3))
    assert find_record(home, "same").run_id == third.run_id
    third.ledger.done("down", clean=True)
    assert find_record(home, "same").run_id == second.run_id
    for record in (first, second):
        record.ledger.done("down", clean=True)
    assert find_record(home, "same").run_id == third.run_id


@pytest.mark.parametrize("wanted", ["other", "dh-", "", "../runs"])
def test_an_unknown_run_is_told_with_those_that_are_known(record: RunRecord, wanted: str) -> None:
    with pytest.raises(UnknownRunError, match=f"known: {record.run_id}.*; `dhctl list` shows them all") as caught:
        find_record(record.home, wanted)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_home_of_a_newer_dhctl_is_not_read(record: RunRecord) -> None:
    (record.home.root / "format").write_text('{"format": 2}')
    with pytest.raises(StateFolderError, match="newer dhctl"):
        all_records(record.home)


def test_json_files_are_whole_or_old(record: RunRecord) -> None:
    path = record.folder / "jobs" / "1" / "result.json"
    record.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        record.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_readers_never_see_half_a_json_file(record: RunRecord) -> None:
    path = record.folder / "big.json"
    bodies = [{"n": n, "filler": "x" * 200_000} for n in range(2)]
    record.write_json(path, bodies[0])
    writer = multiprocessing.get_context("fork").Process(
        target=lambda: [record.write_json(path, bodies[n % 2]) for n in range(30)]
    )
    writer.start()
    try:
        seen = 0
        while writer.is_alive():
            assert json.loads(path.read_text()) in bodies
            seen += 1
    finally:
        writer.join(10)
    assert seen
    assert writer.exitcode == 0


def test_a_run_that_another_process_holds_is_busy(record: RunRecord, start: Start) -> None:
    holder = hold_lock(record, start)
    sentence = (
        f"another dhctl is working on {record.run_id}; waited 0 s to take it down; `dhctl status {record.run_id}`"
    )
    with pytest.raises(RunBusyError, match=sentence), record.lock(0.1, "take it down"):
        pytest.fail("held twice")
    holder.kill()  # a dead holder holds nothing
    holder.wait()
    with record.lock(1, "take it down"):
        pass


def test_the_lock_is_given_back_after_an_error(record: RunRecord) -> None:
    def failing() -> None:
        with record.lock(0, "fail"):
            raise ValueError

    with pytest.raises(ValueError):
        failing()
    with record.lock(0, "work"):
        pass


def test_the_newest_job_is_the_last_submitted(record: RunRecord) -> None:
    assert record.last_job() == 0
    record.ledger.intent("job", number=1)
    record.ledger.done("job", number=1)
    record.ledger.intent("job", number=2)
    assert record.last_job() == 2
    assert record.job_dir(2) == record.folder / "jobs" / "2"
