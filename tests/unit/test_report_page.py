"""The report of runs in every state: what it tells, what it says is missing, and that no output becomes markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dhctl.cli.main import run_group
from dhctl.infra.errors import ExitCode
from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page.page import render
from dhctl.infra.report_page.story import read_story
from unit.fakes import make_record
from unit.report_records import (
    BEGIN,
    HOSTILE,
    RESULT,
    Writer,
    damaged_run,
    epochs,
    failed_run,
    living_run,
    old_run,
    whole_run,
    write_tariff,
)

NOW = BEGIN + timedelta(minutes=20)
Make = Callable[[Home], RunRecord]


class Reader(HTMLParser):
    """Elements and text of a page; every element that is opened must be closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(record: RunRecord) -> Reader:
    return Reader(render(record, None, NOW)[0])


def test_a_whole_run(home: Home) -> None:
    page, verdict = render(whole_run(home), None, NOW)
    assert (verdict.tone, verdict.title) == ("good", "Succeeded")
    text = Reader(page).text
    for told in (
        "0.8124 95 % interval 0.7011 to 0.8893",
        "baseline 0.31: mean colour, logistic regression",
        "Generated phantoms.",
        "Clean",
        "3 min 5 s From the run's start until model and metrics were stored.",
        "40 s, in Ray after 8.5 s, died",
        "went on after a lost head at epoch 13",
        "goes on from job 1",
        "slide 12 is skipped: it has no tissue",
        "the head is lost: its supervisor is gone",
        "No tariff was given.",
        "ab12",
    ):
        assert told in text, told


@pytest.mark.parametrize("make", [whole_run, failed_run, living_run, old_run, damaged_run])
def test_a_page_is_whole_and_wants_nothing_from_elsewhere(make: Make, home: Home) -> None:
    page = page_of(make(home))
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "audio", "video", "form", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        assert str(attributes.get("href", "data:,")) == "data:,"
    assert [tag for tag, _ in page.tags].count("script") == 1
    (policy,) = (a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; ")
    assert "unsafe" not in str(policy)


def test_what_a_job_prints_is_text(home: Home) -> None:
    page, _ = render(failed_run(home), None, NOW)
    assert "<img" not in page
    assert "stranger.example" in page
    assert HOSTILE not in page
    text = Reader(page).text
    assert text.count(HOSTILE) >= 6, "of metric, baseline, stage, warning, log, receipt"
    assert "RuntimeError: broken" in text
    assert "\x1b" not in page


def test_a_failed_run_begins_with_what_went_wrong(home: Home) -> None:
    page, verdict = render(failed_run(home), None, NOW)
    assert (verdict.tone, verdict.title) == ("bad", "Not clean")
    assert verdict.sentence == "Job failed, and 1 thing is left: see the receipt."
    assert page.index('id="troubles"') < page.index('id="timeline"')
    assert "kill 7" in page


def test_a_run_that_did_not_come_up(home: Home) -> None:
    told = Writer(home)
    told.tell(0.1, "up", "intent")
    told.tell(3, "up", "failed", reason="EngineError: no room for the head")
    told.down(3, 4, [])
    _, verdict = render(told.record, None, NOW)
    assert (verdict.title, verdict.sentence) == ("Did not come up", "no room for the head")


def test_an_interrupted_run(home: Home) -> None:
    told = Writer(home)
    told.tell(0.1, "up", "intent")
    told.tell(3, "up", "failed", reason="InterruptedRunError: stopped by SIGTERM")
    told.down(3, 4, [])
    _, verdict = render(told.record, None, NOW)
    assert (verdict.tone, verdict.title) == ("warn", "Interrupted")


def test_a_living_run_is_told_as_of_now(home: Home) -> None:
    record = living_run(home)
    text = page_of(record).text
    assert "As of 2026-11-24 09:20:00 UTC" in text
    assert "None yet It is written when the run is taken down." in text
    assert "19 min 40 s, in Ray after 7 s" in text
    late = read_story(record, BEGIN + timedelta(days=30))
    assert late.life.seconds == 4 * 3600, "a run that nobody ended is drawn to the end of its lease"


def test_an_old_run_says_what_its_record_does_not_hold(home: Home) -> None:
    text = page_of(old_run(home)).text
    for told in (
        "Nobody saw how the job ended (lease ended).",
        "The ledger does not tell when workers joined Ray",
        "The job told no versions of packages.",
        "4 min 46 s, broken off",
        "The spec, as admitted",
    ):
        assert told in text, told
    assert "kubernetes:" not in text


def test_a_damaged_record_says_so(home: Home) -> None:
    text = page_of(damaged_run(home)).text
    for told in (
        "The spec of this run cannot be read",
        "The receipt cannot be read.",
        "jobs/1/result.json cannot be read.",
    ):
        assert told in text, told


def test_a_run_that_was_just_opened(home: Home) -> None:
    record = make_record(home)
    _, verdict = render(record, None, datetime.now(UTC))
    assert verdict.title == "Coming up"


def test_values_that_open_something_are_not_shown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "canary<&>9c1f27d0a4"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    environment = {"env_vars": {"LOGIN": "canary-login-1"}}
    job = {"folder": "/nowhere", "entrypoint": "python main.py", "runtime_env": environment}
    told = Writer(home, job={**job, "params": {"api_token": "canary-token-2"}})
    told.tell(1, "job", "intent", number=1, submission="a")
    told.tell(2, "job", "failed", number=1, reason=f"it printed {secret}")
    told.job(1, [], {"key": secret}, status="FAILED")
    told.log(1, f"connecting with {secret}")
    page, _ = render(told.record, None, NOW)
    assert "canary" not in page
    assert page.count("withheld)") == 4, "in the timeline, the troubles, the log and the result"
    assert "(not shown)" in page


def test_pictures_have_names_and_descriptions(home: Home) -> None:
    page, _ = render(whole_run(home), None, NOW)
    pictures = re.findall(r'<svg[^>]*role="img"[^>]*>(.*?)</svg>', page, re.DOTALL)
    assert len(pictures) > 20
    for picture in pictures:
        assert re.match(r"<title>[^<]+</title><desc>[^<]+</desc>", picture)
    others = re.findall(r"<svg(?![^>]*role=)[^>]*>", page)
    assert all("aria-hidden" in one or "preserveAspectRatio" in one for one in others)


def test_the_verb(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = whole_run(home)
    monkeypatch.chdir(tmp_path)
    assert run_group(["report", record.run_id]) == ExitCode.DONE
    assert "Succeeded; the report is" in capsys.readouterr().out
    page = (tmp_path / f"{record.run_id}.report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    tariff = str(write_tariff(tmp_path))
    assert run_group(["report", "trial", "--tariffs", tariff, "-o", "told.html", "--json"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["file"]) == ("Succeeded", str(tmp_path / "told.html"))
    assert "0.0233 EUR" in (tmp_path / "told.html").read_text()
    assert [p.name for p in tmp_path.glob(".*html*")] == []


def test_the_verb_opens_the_page(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("click.launch", opened.append)
    record = whole_run(home)
    assert run_group(["report", record.run_id, "-o", str(tmp_path / "a b.html"), "--open"]) == ExitCode.DONE
    assert opened == [(tmp_path / "a b.html").as_uri()]


@pytest.mark.parametrize(
    ("output", "told"), [(".", "is a folder; name a file in it"), ("none/a.html", "there is no folder")]
)
def test_a_place_where_nothing_can_be_written(
    output: str,
    told: str,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_group(["report", whole_run(home).run_id, "-o", output]) == ExitCode.REFUSED
    assert told in capsys.readouterr().err


def test_a_record_that_holds_nothing_is_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record(home)
    record.ledger.path.write_text("")
    (record.folder / "spec.json").unlink()
    assert run_group(["report", record.run_id]) == ExitCode.REFUSED
    assert "has no readable spec" in capsys.readouterr().err


def test_many_nodes_and_metrics_are_bounded(home: Home) -> None:
    told = Writer(home, workers={"max": 300})
    told.up()
    told.tell(15, "job", "intent", number=1, submission="a")
    for number in range(200):
        told.worker(f"w-{number}", f"127.1.{number}.3", 20 + number, 30 + number)
    rows = [{**row, **{f"auc_{n}": 0.5 + n / 200 for n in range(60)}} for row in epochs(1, 5000)]
    told.job(1, rows, RESULT, status="SUCCEEDED")
    page, _ = render(told.record, None, NOW)
    text = Reader(page).text
    assert "141 more nodes stand in the table." in text
    assert "more metrics are not drawn" in text
    assert page.count("<polyline") <= 30
    assert len(page) < 4_000_000
