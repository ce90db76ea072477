"""The result's metric on a line: its value, its interval, and what trivial methods reach."""

from __future__ import annotations

from markupsafe import Markup

from dhctl.infra.report_page.axis import ticks
from dhctl.infra.report_page.jobs import Metric
from dhctl.infra.report_page.svg import element, picture
from dhctl.infra.report_page.words import value

WIDTH, HEIGHT, EDGE = 340.0, 58.0, 14.0
MIDDLE = 20.0


def interval_chart(metric: Metric) -> Markup:
    """Value as a dot, interval as a bar, each baseline as a mark."""
    numbers = [metric.value, *(v for _, v in metric.baselines)]
    numbers += [bound for bound in (metric.low, metric.high) if bound is not None]
    axis = ticks(min(numbers), max(numbers), 4)
    low, high = axis[0].at, axis[-1].at

    def x(number: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (number - low) / (high - low)

    parts = [element("line", class_="base", x1=EDGE, x2=WIDTH - EDGE, y1=MIDDLE, y2=MIDDLE)]
    for tick in axis:
        parts.append(element("line", class_="grid", x1=x(tick.at), x2=x(tick.at), y1=MIDDLE + 4, y2=MIDDLE + 9))
        parts.append(element("text", tick.label, class_="tick", x=x(tick.at), y=MIDDLE + 22, text_anchor="middle"))
    for name, number in metric.baselines:
        mark = element("title", f"{name}: {value(number)}")
        parts.append(element("rect", mark, class_="baseline", x=x(number) - 1.5, y=MIDDLE - 11, width=3, height=22))
    if metric.low is not None and metric.high is not None:
        width = max(x(metric.high) - x(metric.low), 1.0)
        parts.append(element("rect", class_="interval", x=x(metric.low), y=MIDDLE - 5, width=width, height=10, rx=5))
    parts.append(element("circle", class_="value", cx=x(metric.value), cy=MIDDLE, r=6))
    return picture(metric.name, described(metric), *parts, class_="spread", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}")


def described(metric: Metric) -> str:
    """The metric in words."""
    told = value(metric.value)
    if metric.low is not None and metric.high is not None:
        told += f", 95 % interval {value(metric.low)} to {value(metric.high)}"
    return "; ".join([told, *(f"{name} {value(number)}" for name, number in metric.baselines)])
