"""How many workers there were over time, against how many the job wanted and how many were allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from dhctl.infra.report_page.acts import Span
from dhctl.infra.report_page.axis import whole_ticks
from dhctl.infra.report_page.nodes import NodeSpan, counts, peak
from dhctl.infra.report_page.svg import element, percent, picture
from dhctl.infra.report_page.timeline_chart import Ruler

HEIGHT = 150
TOP, BOTTOM = 18, 4


@dataclass(frozen=True)
class Wanted:
    """What was asked for: workers at most, and how many the job trains on; of an elastic job at most and at least."""

    most: int
    job: int
    job_least: int


def workers_chart(ruler: Ruler, nodes: Sequence[NodeSpan], jobs: Sequence[Span], wanted: Wanted | None) -> Markup:
    """Steps as wide as the page: those asked for, those in Ray; lines for the limit and for what jobs wanted."""
    workers = [node for node in nodes if not node.is_head]
    highest = max(peak(nodes), wanted.most if wanted else 0, 1)
    scale = _Scale(highest)
    asked = counts((n.begin, n.end) for n in workers)
    joined = counts((n.joined, n.end) for n in workers if n.joined)
    parts = [ruler.grid(HEIGHT), _levels(scale)]
    if wanted:
        parts += [_band(ruler, scale, job, count) for job in jobs for count in {wanted.job, wanted.job_least}]
        parts.append(_line(scale, wanted.most, "limit"))
    parts.append(_steps(ruler, scale, asked, "steps asked"))
    if joined:
        parts.append(_steps(ruler, scale, joined, "steps joined"))
    parts += [_label(scale, tick.at, tick.label) for tick in whole_ticks(0, highest, 4)]
    limit = f"; at most {wanted.most} were allowed" if wanted else ""
    told = f"{peak(nodes)} workers at most at one time, {len(workers)} in all{limit}"
    return picture("Workers over time", told, *parts, class_="workers", width="100%", height=HEIGHT)


@dataclass(frozen=True)
class _Scale:
    highest: int

    def y(self, count: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - count / self.highest)


def _levels(scale: _Scale) -> Markup:
    return Markup("").join(_line(scale, tick.at, "grid") for tick in whole_ticks(0, scale.highest, 4))


def _line(scale: _Scale, count: float, kind: str) -> Markup:
    y = scale.y(count)
    return element("line", class_=kind, x1="0", x2="100%", y1=y, y2=y)


def _label(scale: _Scale, count: float, text: str) -> Markup:
    return element("text", text, class_="tick", x=2, y=scale.y(count) - 3)


def _band(ruler: Ruler, scale: _Scale, job: Span, count: int) -> Markup:
    left, right = ruler.share(job.begin), ruler.share(job.end)
    return element(
        "rect", class_="demand", x=percent(left), width=percent(max(right - left, 0.0)), y=scale.y(count),
        height=scale.y(0) - scale.y(count),
    )  # fmt: skip


def _steps(ruler: Ruler, scale: _Scale, steps: Sequence[tuple[datetime, int]], kind: str) -> Markup:
    """A path in a picture of its own, stretched to the page's width; its lines stay as thin as they are."""
    places = [(ruler.share(at) * 1000, scale.y(count)) for at, count in steps]
    path = f"M0 {scale.y(0):.1f}" + "".join(f"H{x:.2f}V{y:.1f}" for x, y in places) + "H1000"
    drawn = element("path", class_=kind, d=path, vector_effect="non-scaling-stroke")
    return element("svg", drawn, viewBox=f"0 0 1000 {HEIGHT}", preserveAspectRatio="none", width="100%", height=HEIGHT)
