"""The timeline: a lane a phase and a node, along the seconds since the run began. Lanes are as wide as the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from dhctl.infra.report_page.acts import Ending, Span
from dhctl.infra.report_page.axis import Tick, time_ticks
from dhctl.infra.report_page.nodes import NodeSpan
from dhctl.infra.report_page.phases import Life
from dhctl.infra.report_page.svg import element, percent, picture
from dhctl.infra.report_page.words import duration

NODES_SHOWN = 60
"""Lanes of nodes at most; the table below the chart has all."""

TICKS = 8
HEIGHT = 22
BAR = 14
_KINDS = {"up": "up", "down": "down", "new head": "recover"}


@dataclass(frozen=True)
class Lane:
    """One row: its name, its picture, and what it says in words."""

    name: str
    level: int
    """0 for a part of the run or a node, 1 for a step of a part."""
    track: Markup
    told: str


@dataclass(frozen=True)
class Timeline:
    """Groups of lanes over one axis."""

    axis: Markup
    phases: list[Lane]
    nodes: list[Lane]
    left_out: int


@dataclass(frozen=True)
class Ruler:
    """From moments to shares of the width."""

    begin: datetime
    seconds: float

    @classmethod
    def of(cls, life: Life) -> Ruler:
        """Over the whole life of a run."""
        return cls(life.begin, max(life.seconds, 0.001))

    def share(self, at: datetime) -> float:
        """0 at the begin, 1 at the end; what lies outside is drawn at the edge."""
        return min(1.0, max(0.0, self.since(at) / self.seconds))

    def since(self, at: datetime) -> float:
        """Seconds after the run's begin."""
        return (at - self.begin).total_seconds()

    @property
    def ticks(self) -> list[Tick]:
        """Along the axis."""
        return time_ticks(self.seconds, TICKS)

    def grid(self, height: float) -> Markup:
        """A line at each tick."""
        lines = (
            element("line", class_=_thinned("grid", n), x1=at, x2=at, y1="0", y2=height)
            for n, at in enumerate(percent(tick.at / self.seconds) for tick in self.ticks)
        )
        return Markup("").join(lines)

    def axis(self) -> Markup:
        """The ticks' labels, without a picture's name: the lanes tell the times themselves."""
        labels = []
        for number, tick in enumerate(self.ticks):
            share = tick.at / self.seconds
            anchor = "start" if share < 0.02 else "end" if share > 0.96 else "middle"
            labels.append(
                element("text", tick.label, class_=_thinned("tick", number), x=percent(share), y=13, text_anchor=anchor)
            )
        return element("svg", *labels, class_="axis", width="100%", height=18, aria_hidden="true")


def timeline_of(life: Life, nodes: list[NodeSpan]) -> Timeline:
    """Phases with their steps below them, then nodes."""
    ruler = Ruler.of(life)
    lanes = []
    for phase in life.phases:
        lanes.append(_phase_lane(ruler, phase, 0))
        if phase.name == "up" and life.steps:
            lanes += [_phase_lane(ruler, step, 1) for step in life.steps]
    shown = nodes[:NODES_SHOWN]
    return Timeline(ruler.axis(), lanes, [_node_lane(ruler, n) for n in shown], len(nodes) - len(shown))


def _phase_lane(ruler: Ruler, span: Span, level: int) -> Lane:
    ended = "" if span.ending is Ending.DONE else f", {span.ending.value}"
    told = f"{duration(span.seconds)}{ended}"
    kind = "step" if level else _KINDS.get(span.name, "job")
    state = {Ending.FAILED: " bad", Ending.BROKEN_OFF: " torn", Ending.OPEN: " open"}.get(span.ending, "")
    bars = [_bar(ruler, span.begin, span.end, f"bar {kind}{state}")]
    return _lane(ruler, span.name, level, told, bars, span.begin)


def _node_lane(ruler: Ruler, node: NodeSpan) -> Lane:
    told = duration(node.seconds)
    if node.joined:
        told += f", in Ray after {duration((node.joined - node.begin).total_seconds())}"
    if node.why and node.why != "ended with the run":
        told += f", {node.why}"
    kind = "head" if node.is_head else "worker"
    bars = []
    if node.joined and not node.is_head:
        bars.append(_bar(ruler, node.begin, node.joined, "bar worker waiting"))
    bars.append(_bar(ruler, node.joined or node.begin, node.end, f"bar {kind}"))
    if node.lost:
        at = percent(ruler.share(node.end))
        bars.append(element("circle", class_="mark bad", cx=at, cy=HEIGHT / 2, r=5))
    return _lane(ruler, node.name, 0, told, bars, node.begin)


def _bar(ruler: Ruler, begin: datetime, end: datetime, kind: str) -> Markup:
    left, right = ruler.share(begin), ruler.share(end)
    width = percent(max(right - left, 0.0015))  # what was over at once is seen too
    return element("rect", class_=kind, x=percent(left), y=(HEIGHT - BAR) / 2, width=width, height=BAR, rx=3)


def _lane(ruler: Ruler, name: str, level: int, told: str, bars: Iterable[Markup], begin: datetime) -> Lane:
    described = f"from {duration(ruler.since(begin))} after the run's start, {told}"
    track = picture(name, described, ruler.grid(HEIGHT), *bars, class_="track", width="100%", height=HEIGHT)
    return Lane(name, level, track, told)


def _thinned(kind: str, number: int) -> str:
    """Every second tick is left out where the page is narrow."""
    return f"{kind} odd" if number % 2 else kind
