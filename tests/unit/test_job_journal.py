"""What a job says, kept beside the run as it comes."""

from __future__ import annotations

import json
from pathlib import Path

from dhctl.infra.events import Event, JobLogged, JobProgressed, Warned
from dhctl.infra.job_journal import JobJournal

PROGRESS = '@dhctl {"type":"progress","stage":"train","step":3,"of":20,"unit":"epoch","metrics":{"loss":0.41}}'


def test_lines_become_events_files_and_a_result(tmp_path: Path, told: list[Event]) -> None:
    with JobJournal(tmp_path / "jobs" / "1", told.append) as journal:
        for line in ("hello", PROGRESS, '@dhctl {"type":"warning","text":"one slide skipped"}', "@dhctl {"):
            journal.take(line)
        assert (tmp_path / "jobs" / "1" / "driver.log").read_text().startswith("hello\n")  # at once
        journal.take('@dhctl {"type":"result","result":{"value":1}}')
        journal.take('@dhctl {"type":"result","result":{"value":2}}')
    assert told == [
        JobLogged("hello"),
        JobProgressed("train", 3, 20, "epoch", {"loss": 0.41}),
        Warned("one slide skipped"),
        JobLogged("@dhctl {"),
    ]
    assert journal.result == {"value": 2}
    assert len((tmp_path / "jobs" / "1" / "driver.log").read_text().splitlines()) == 6
    row = {"stage": "train", "step": 3, "of": 20, "unit": "epoch", "loss": 0.41}
    assert json.loads((tmp_path / "jobs" / "1" / "metrics.jsonl").read_text()) == row


def test_text_that_is_no_text_is_kept_readable(tmp_path: Path, told: list[Event]) -> None:
    with JobJournal(tmp_path, told.append) as journal:
        journal.take("half a pair \ud83d")
    assert (tmp_path / "driver.log").read_text() == "half a pair ?\n"


def test_a_metric_of_any_size_ends_nothing(tmp_path: Path, told: list[Event]) -> None:
    with JobJournal(tmp_path, told.append) as journal:
        journal.take('@dhctl {"type":"progress","stage":"t","step":1,"of":1,"metrics":{"n":1%s}}' % ("0" * 400))


def test_metrics_are_json_for_every_reader(tmp_path: Path, told: list[Event]) -> None:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    with JobJournal(tmp_path, told.append) as journal:
        journal.take('@dhctl {"type":"progress","stage":"t","step":1,"of":1,"metrics":{"loss":NaN}}')
    json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)


def test_a_metrics_name_does_not_hide_the_step(tmp_path: Path, told: list[Event]) -> None:
    with JobJournal(tmp_path, told.append) as journal:
        journal.take('@dhctl {"type":"progress","stage":"train","step":3,"of":9,"metrics":{"step":0.5}}')
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 3


def test_a_journal_that_another_client_began_goes_on_behind_its_last_whole_line(
    tmp_path: Path, told: list[Event]
) -> None:
    whole = f"hello\u2028still the first\n{PROGRESS}\n@dhctl "
    (tmp_path / "driver.log").write_text(whole + '{"type":"resu')
    (tmp_path / "metrics.jsonl").write_text('{"torn')
    with JobJournal(tmp_path, told.append) as journal:
        assert (journal.taken, journal.last_line, told) == (2, "hello\u2028still the first", [])
        journal.take('@dhctl {"type":"result","result":{"value":1}}')
    assert journal.result == {"value": 1}
    assert len((tmp_path / "driver.log").read_text().split("\n")) == 4
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 3


def test_what_the_job_runs_in_is_kept(tmp_path: Path, told: list[Event]) -> None:
    with JobJournal(tmp_path, told.append) as journal:
        journal.take('@dhctl {"type":"environment","python":"3.11","platform":"Linux","packages":{"ray":"2.60.0"}}')
    assert json.loads((tmp_path / "environment.json").read_text())["packages"] == {"ray": "2.60.0"}
