"""The parts of the report: nodes and phases from the ledger, curves from progress lines, axes, words, colours."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra import report_page
from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page import words
from dhctl.infra.report_page.axis import ticks, time_ticks, whole_ticks
from dhctl.infra.report_page.curves import curves_of
from dhctl.infra.report_page.jobs import JobStory, chain, metric_of
from dhctl.infra.report_page.nodes import NodeSpan, counts
from dhctl.infra.report_page.story import RunStory, read_story
from dhctl.infra.report_page.svg import element
from unit.report_records import BEGIN, Writer, whole_run


def story(record: RunRecord) -> RunStory:
    return read_story(record, BEGIN + timedelta(minutes=20))


def seconds(node: NodeSpan) -> tuple[float, float]:
    return (node.begin - BEGIN).total_seconds(), (node.end - BEGIN).total_seconds()


def test_phases_and_steps(home: Home) -> None:
    life = story(whole_run(home)).life
    assert [(s.name, round(s.seconds, 1), s.ending.value) for s in life.phases] == [
        ("up", 13.9, "done"),
        ("job 1", 80.8, "failed"),
        ("new head", 11.9, "done"),
        ("job 2", 77.5, "done"),
        ("down", 3.5, "done"),
    ]
    assert [(s.name, round(s.seconds, 1)) for s in life.steps] == [("stack", 8.8), ("doors, kept workers", 5.0)]


def test_nodes_of_this_machine(home: Home) -> None:
    nodes = {node.name: node for node in story(whole_run(home)).nodes}
    assert list(nodes) == ["head-a1", "head-b2", "w-1", "w-2", "w-3", "w-4", "w-5"]
    assert (nodes["head-a1"].why, nodes["head-a1"].lost) == ("lost", True)
    assert seconds(nodes["head-b2"]) == (98, 187.25)
    assert (seconds(nodes["w-2"]), nodes["w-2"].why) == ((21, 60 + 1), "died")
    assert nodes["w-4"].joined == BEGIN + timedelta(seconds=70)


def test_nodes_of_a_cloud_whose_head_told_late(home: Home) -> None:
    told = Writer(home)
    told.tell(1, "resource.create", "intent", kind="Network", name="network")
    told.tell(5, "resource.create", "intent", kind="Instance", name="head")
    told.tell(9, "head.boot", "intent", server="s")
    told.tell(30, "node.seen", node="10.0.0.7", name="run-w-1", status="joined", alive=1)
    told.tell(100, "down", "intent", reason="done")
    for at, act, phase in ((20, "node.start", "intent"), (90, "node.leave", "done")):
        at_head = (BEGIN + timedelta(seconds=at)).isoformat()
        told.tell(110, act, phase, node="run-w-1", by="head", at_head=at_head)
    told.tell(115, "resource.delete", "done", kind="server", name="x-head", id="s")
    told.tell(120, "down", "done", clean=True, left=0)
    head, worker = story(told.record).nodes
    assert (head.is_head, seconds(head)) == (True, (5, 115))
    assert (worker.name, seconds(worker), worker.why) == ("run-w-1", (20, 90), "released")
    assert worker.joined == BEGIN + timedelta(seconds=30)


def test_workers_that_only_ray_tells(home: Home) -> None:
    told = Writer(home)
    told.tell(10, "node.seen", node="10.0.0.7", name="", status="joined", alive=1)
    told.tell(50, "node.seen", node="10.0.0.7", name="", status="left", alive=0)
    told.tell(100, "down", "done", clean=True, left=0)
    (worker,) = story(told.record).nodes
    assert (worker.name, seconds(worker), worker.why) == ("10.0.0.7", (10, 50), "left Ray")


def test_a_look_at_a_run_that_is_gone_is_no_part_of_its_life(home: Home) -> None:
    record = whole_run(home)
    told = Writer.__new__(Writer)
    told.record = record
    told.tell(90_000, "down", "intent", reason="done")
    told.tell(90_001, "down", "done", clean=True, left=0)
    assert story(record).life.seconds == 189


def test_counts_are_steps() -> None:
    at = [BEGIN + timedelta(seconds=s) for s in range(4)]
    assert counts([(at[0], at[2]), (at[1], at[2]), (at[2], at[3])]) == [(at[0], 1), (at[1], 2), (at[2], 1), (at[3], 0)]


def job(number: int, rows: list[dict[str, Any]], after: int | None = None) -> JobStory:
    return JobStory(number, "SUCCEEDED", rows=tuple(rows), after=after)


def row(step: Any, **metrics: Any) -> dict[str, Any]:
    return {"stage": "train", "step": step, "of": 9, "unit": "epoch", **metrics}


def test_parts_of_the_data_share_a_chart_and_repeated_steps_count_once() -> None:
    first = job(1, [row(1, loss=3.0, val_loss=4.0, epoch=1), row(2, loss=2.0, val_loss=3.0), row("x", loss=9.0)])
    second = job(2, [row(2, loss=1.5, val_loss=2.5), row(3, loss=1.0, val_loss=2.0)], after=1)
    (chart,) = curves_of([first, second]).charts
    assert (chart.title, chart.resumed) == ("loss", (2,))
    assert [s.name for s in chart.series] == ["training", "validation"]
    assert chart.series[0].points == ((1, 3.0), (2, 1.5), (3, 1.0))


def test_what_was_told_once_is_no_curve_and_what_is_no_number_is_passed_over() -> None:
    found = curves_of([job(1, [row(1, auc=0.7, note="text", flag=True, big=10**400, nothing=None)])])
    assert (found.charts, found.single) == ((), (("train", "auc", 0.7),))


def test_pace_comes_last() -> None:
    rows = [row(n, learning_rate=0.1 * n, validation_auc=0.1 * n, loss=1.0 / n) for n in (1, 2)]
    assert [c.title for c in curves_of([job(1, rows)]).charts] == ["loss", "auc", "learning rate"]


def test_the_newest_job_and_those_before_it() -> None:
    jobs = [job(1, []), job(2, []), job(3, [], after=2), job(4, [], after=4)]
    assert [j.number for j in chain(jobs[:3])] == [2, 3]
    assert [j.number for j in chain(jobs)] == [4], "a record that goes round in a circle"
    assert chain([]) == []


@pytest.mark.parametrize(
    "told", [{}, {"metric": 3}, {"metric": {"value": "high"}}, {"metric": {"name": "auc", "value": float("nan")}}]
)
def test_no_metric(told: dict[str, Any]) -> None:
    assert metric_of(told) is None


def test_a_metric_with_several_baselines() -> None:
    told = {"name": "auc", "value": 1, "ci95": [0.5], "baseline": {"name": "a", "value": 0.1}, "baselines": [7]}
    found = metric_of({"metric": {**told, "baselines": [{"name": "a", "value": 0.1}, {"name": "b", "value": 0.2}, 7]}})
    assert found
    assert (found.low, found.baselines) == (None, (("a", 0.1), ("b", 0.2)))


def test_ticks_are_round_and_span_the_values() -> None:
    assert [t.label for t in ticks(0.03, 0.97, 4)] == ["0", "0.5", "1.0"]
    assert ticks(3, 3, 4)[0].label == "1"
    assert [t.label for t in ticks(-1200, 5300, 4)] == ["-2,000", "0", "2,000", "4,000", "6,000"]
    for low, high in ((1e-9, 2e-9), (-5.0, -4.9), (0, 1e12)):
        found = ticks(low, high, 4)
        assert found[0].at <= low < high <= found[-1].at
        assert len({t.label for t in found}) == len(found) <= 12


def test_ticks_of_epochs_and_times() -> None:
    assert [t.label for t in whole_ticks(1, 5, 6)] == ["1", "2", "3", "4", "5"]
    assert [t.label for t in whole_ticks(1, 30, 6)] == ["5", "10", "15", "20", "25", "30"]
    assert [t.label for t in whole_ticks(3, 3, 6)] == ["3"]
    assert [t.label for t in time_ticks(189, 8)][:4] == ["0", "30 s", "1 min", "1:30"]
    assert [t.label for t in time_ticks(14_400, 8)][:3] == ["0", "30 min", "1 h"]
    assert [t.label for t in time_ticks(0.4, 8)][1] == "0.05 s"
    assert 3 <= len(time_ticks(90 * 86400, 8)) <= 10


@pytest.mark.parametrize(
    ("told", "wanted"),
    [(9.44, "9.4 s"), (60, "1 min"), (125, "2 min 5 s"), (12_000, "3 h 20 min"), (187_300, "2 d 4 h"), (None, "–")],
)
def test_durations(told: float | None, wanted: str) -> None:
    assert words.duration(told) == wanted


def test_numbers() -> None:
    assert [words.value(n) for n in (0.98461, 12.3, 1250.0, 0.0, 1e-5, -3.0)] == [
        "0.9846",
        "12.3",
        "1,250",
        "0",
        "1e-05",
        "-3",
    ]
    assert [words.hours(n) for n in (None, 0, 4, 12.34, 0.0004)] == ["–", "0", "4", "12.3", "< 0.001"]
    assert [words.money(n, "EUR") for n in (None, 0.0, 0.0233, 1234.5)] == [
        "–",
        "0.00 EUR",
        "0.0233 EUR",
        "1,234.50 EUR",
    ]


def test_output_is_plain_and_short() -> None:
    assert words.plain("\x1b[31mred\x1b[0m\x07 \ttab") == "red \ttab"
    assert words.plain("x" * 500).endswith("[100 more]")


def test_elements_escape_everything() -> None:
    assert (
        element("a-b", "<", class_='"x"', stroke_width=1.25)
        == '<a-b class="&#34;x&#34;" stroke-width="1.25">&lt;</a-b>'
    )


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_text_and_lines(scheme: str) -> None:
    style = (Path(next(iter(report_page.__path__))) / "style.css").read_text()
    light, dark, *_ = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    for text in ("text", "soft", "busy"):
        for back in ("page", "panel", "sunk"):
            assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for tone in ("good", "bad", "warn", "busy"):
        assert contrast(colours[tone], colours[f"{tone}-back"]) >= 4.5, tone
        assert contrast(colours[tone], colours["panel"]) >= 4.5, tone
    for line in ("c0", "c1", "c2", "c3", "c4", "c5"):
        assert contrast(colours[line], colours["panel"]) >= 3, line
