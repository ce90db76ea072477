"""What is printed: every event as a line and as JSON, and the receipt. The expected outputs are files in golden/."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from dhctl.cli.console import Console
from dhctl.cli.live_view import LiveView
from dhctl.cli.outcome import metric_lines
from dhctl.infra import events
from dhctl.infra.receipt import Check, Leftover, Receipt

GOLDEN = Path(__file__).parent / "golden"

EVENTS: list[events.Event] = [
    events.PhaseStarted("up", "dh-aaaabbbbcc on local"),
    events.ResourceChanged("head", "HeadNode", "creating"),
    events.ResourceChanged("head", "HeadNode", "created", "127.1.2.2"),
    events.ResourceChanged("token", "TokenSecret", "failed"),
    events.NodeChanged("127.1.2.3", "joined", 1, "w-1"),
    events.NodeChanged("127.1.2.3", "left", 0, "w-1"),
    events.JobLogged("epoch [3/20] loss=0.4 [bold]not markup[/bold]"),
    events.JobProgressed("train", 3, 20, "epoch", {"loss": 0.41234567, "kappa": 0.8}),
    events.Noted("Ray refuses callers without the token: Jobs API, GCS, raylet"),
    events.Warned("sweep: [Errno 28] No space left on device"),
    events.PhaseDone("up", 7.26, "dh-aaaabbbbcc"),
]

NODE = Leftover("process", "raylet (pid 7)", "kill -9 7")
CHECKS = {
    "clean": (Check("processes of this machine", "the mark"), Check("run folder", "/tmp/dhctl-0/dh-aaaabbbbcc")),
    "left": (Check("processes of this machine", "the mark", (NODE,)), Check("run folder", "/tmp/x")),
    "unknown": (Check("listening ports", "6 ports", (), "sockets cannot be listed"), Check("run folder", "/tmp/x")),
}


def compare(name: str, text: str) -> None:
    """Against golden/NAME; to accept a change, write the new text there."""
    assert text == (GOLDEN / name).read_text(), f"golden/{name} differs"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_every_kind_of_event_is_tried() -> None:
    assert {type(e) for e in EVENTS} == set(typing.get_args(events.Event))


def test_events_are_timestamped_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        for event in EVENTS:
            console.report(event)
    out = capsys.readouterr().out
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in out.splitlines())
    compare("console-plain.txt", re.sub(r"(?m)^\d\d:\d\d:\d\d| +$", lambda m: "HH:MM:SS" if m[0].strip() else "", out))


def test_events_are_json_lines_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(as_json=True) as console:
        for event in EVENTS:
            console.report(event)
        console.say("ended", run="dh-aaaabbbbcc")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines[:-1]:
        assert line.pop("at")
    compare("console-json.txt", "".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("verdict", CHECKS)
def test_a_receipt_is_a_table_with_a_verdict(verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    receipt = Receipt(
        *("dh-aaaabbbbcc", "trial", "local", "2026-07-01", "2026-07-02", "done"),
        CHECKS[verdict],
        {"run folders": 1, "workers": 2},
    )
    with Console() as console:
        console.receipt(receipt)
    compare(f"receipt-{verdict}.txt", re.sub(r"[ ]+$", "", capsys.readouterr().out, flags=re.MULTILINE))
    with Console(as_json=True) as console:
        console.receipt(receipt)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps({"event": "Receipt", **receipt.to_dict()}))


@pytest.mark.parametrize("line", ["key:x:value", "a:b:c", "[red]:warning:[/red]", "C:\\slides\\"])
def test_what_a_job_prints_is_shown_as_it_is(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.report(events.JobLogged(line))
    assert capsys.readouterr().out.rstrip("\n").endswith(f"| {line}")


class Latin(io.TextIOWrapper):
    """A terminal that knows no Unicode."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")


@pytest.mark.parametrize("event", [events.JobLogged("grün"), events.Warned("half a pair \ud83d")])
def test_a_character_that_the_terminal_lacks_ends_nothing(event: events.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Latin())
    with Console() as console:
        console.report(event)


REPORTING = """
import sys
from dhctl.cli.console import Console
from dhctl.infra.events import Noted
with Console(sys.argv[1] == "json") as console:
    console.report(Noted("one"))
    console.report(Noted("two"))
print("went on", file=sys.stderr)
"""


@pytest.mark.parametrize("form", ["json", "plain"])
def test_a_reader_that_leaves_does_not_end_the_run(form: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, form], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "went on\n")


def drawn(view: LiveView) -> str:
    terminal = Terminal(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    terminal.print(view)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_a_terminal_shows_the_phase_resources_workers_and_progress() -> None:
    view = LiveView()
    for event in EVENTS[:-1]:
        view.take(event)
    text = drawn(view)
    for part in ("up dh-aaaabbbbcc on local", "HeadNode head", "workers: 0", "train", "epoch 3/20", "loss 0.412"):
        assert part in text
    view.take(EVENTS[-1])
    assert drawn(view).strip() == ""


@pytest.mark.parametrize(("step", "of"), [(0, 0), (5, 0), (9, 3), (0, 5)])
def test_odd_progress_is_drawn_all_the_same(step: int, of: int) -> None:
    view = LiveView()
    view.take(EVENTS[0])
    view.take(events.JobProgressed("train", step, of))
    assert f"epoch {step}/{of}" in drawn(view)


def test_a_jobs_metric_is_told_with_its_interval_and_baseline() -> None:
    ours = {"name": "qwk", "value": 0.812, "ci95": [0.7, 0.9], "baseline": {"name": "majority", "value": 0.0}}
    assert metric_lines({"metric": ours}) == ["qwk 0.812 (95 % CI 0.700 to 0.900); majority baseline 0.000"]
    assert metric_lines({}) == []
    assert metric_lines({"metric": {"own": 1}}) == ['metric {"own": 1}']


def test_a_metric_without_an_interval_is_told_all_the_same() -> None:
    odd = {"name": "qwk", "value": 0.8, "ci95": [None, None], "baseline": {"name": "majority", "value": 0.0}}
    assert metric_lines({"metric": odd})
