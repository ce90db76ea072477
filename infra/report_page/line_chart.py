"""A metric over epochs, as a small picture: several of them stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dhctl.infra.report_page.axis import Tick, ticks, whole_ticks
from dhctl.infra.report_page.curves import Chart, Series, thinned
from dhctl.infra.report_page.svg import element, picture
from dhctl.infra.report_page.words import value

WIDTH, HEIGHT = 340.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 24.0
MARKED = 40
"""Lines of so few points have a dot at each."""


def line_chart(chart: Chart) -> Markup:
    """Lines of all series of the chart, each of its own colour and dash."""
    plot = _Plot(chart.series)
    parts = [plot.grid(), *(plot.resumed(step) for step in chart.resumed)]
    parts += [plot.line(series, number) for number, series in enumerate(chart.series)]
    told = "; ".join(f"{s.name or chart.title}: {value(s.last)}, {summary(s)}" for s in chart.series)
    description = f"{chart.unit} {plot.first} to {plot.last}. {told}"
    return picture(chart.title, description, *parts, class_="curve", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}")


def summary(series: Series) -> str:
    """Where it began, and between what it lay."""
    values = [v for _, v in series.points]
    if min(values) == max(values):
        return "all the time"
    return f"began at {value(values[0])}, range {value(min(values))} to {value(max(values))}"


class _Plot:
    """Scales of one picture."""

    def __init__(self, series: Sequence[Series]) -> None:
        points = [point for one in series for point in one.points]
        self.first, self.last = min(s for s, _ in points), max(s for s, _ in points)
        self._y = ticks(min(v for _, v in points), max(v for _, v in points), 4)
        self._low, self._high = self._y[0].at, self._y[-1].at

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - self.first) / max(1, self.last - self.first)

    def y(self, number: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self._high - number) / (self._high - self._low)

    def grid(self) -> Markup:
        steps = (
            element("text", tick.label, class_="tick", x=self.x(tick.at), y=HEIGHT - 7, text_anchor="middle")
            for tick in whole_ticks(self.first, self.last, 6)
        )
        return Markup("").join([*(self._level(tick) for tick in self._y), *steps])

    def _level(self, tick: Tick) -> Markup:
        y = self.y(tick.at)
        label = element("text", tick.label, class_="tick", x=LEFT - 6, y=y + 3.5, text_anchor="end")
        return element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y) + label

    def resumed(self, step: int) -> Markup:
        return element("line", class_="resumed", x1=self.x(step), x2=self.x(step), y1=TOP, y2=HEIGHT - BOTTOM)

    def line(self, series: Series, number: int) -> Markup:
        points = thinned(series.points)
        places = " ".join(f"{self.x(step):.1f},{self.y(found):.1f}" for step, found in points)
        parts = [element("polyline", class_=f"line s{number % 6}", points=places)]
        dotted = points if len(points) <= MARKED else points[-1:]
        for step, found in dotted:
            told = element("title", f"{series.name} {step}: {value(found)}".strip())
            parts.append(element("circle", told, class_=f"dot s{number % 6}", cx=self.x(step), cy=self.y(found), r=2.4))
        return Markup("").join(parts)
