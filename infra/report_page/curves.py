"""Metrics over epochs: the progress lines of a job as series, and which of them share a chart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dhctl.infra.report_page.files import number
from dhctl.infra.report_page.jobs import JobStory
from dhctl.infra.report_page.words import value

T = TypeVar("T")

KEYS = ("stage", "step", "of", "unit", "epoch")
"""Of a progress line, what is no metric."""

_PARTS = {"train": "training", "training": "training", "validation": "validation", "valid": "validation"}
_PARTS |= {"val": "validation", "test": "test"}
_NAMED = re.compile(rf"^({'|'.join(_PARTS)})[_/ .-](.+)$")

PACE = ("learning_rate", "lr", "samples_per_s", "loop_s", "workers", "seconds")
"""Metrics of how training went on rather than of what was learned; their charts come last."""

POINTS = 400
"""Points of a line, and rows of its table, at most: more than that is not seen."""

CHARTS = 24
"""Charts of one run at most: a job may tell a metric a class."""


@dataclass(frozen=True)
class Series:
    """Values of one metric; `points` are (step, value), by step."""

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Chart:
    """Series that share an axis, such as the loss in training and in validation. `resumed` are steps at which a job
    went on after another one, whose head was lost.
    """

    title: str
    stage: str
    unit: str
    series: tuple[Series, ...]
    resumed: tuple[int, ...] = ()

    def table(self) -> list[tuple[int, list[str]]]:
        """Values of all series by step, for people; of very many steps a part, the last one among them."""
        values = [dict(one.points) for one in self.series]
        steps = thinned(sorted({step for one in values for step in one}))
        return [(step, [value(one[step]) if step in one else "" for one in values]) for step in steps]


@dataclass(frozen=True)
class Curves:
    """What is drawn, and what was told only once: (stage, metric, value)."""

    charts: tuple[Chart, ...]
    single: tuple[tuple[str, str, float], ...]
    left_out: int = 0
    """Charts beyond the limit."""


def thinned(points: Sequence[T]) -> list[T]:
    """At most POINTS of them, evenly, with the first and the last."""
    every = -(-len(points) // POINTS)
    return [*points[:-1:every], points[-1]] if points else []


def curves_of(jobs: Sequence[JobStory]) -> Curves:
    """Of a job and those that it goes on from: a step that was done again counts as it was done last."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    units: dict[str, str] = {}
    resumed: dict[str, list[int]] = {}
    for job in jobs:
        begun = set()
        for stage, step, unit, metrics in _lines(job):
            units.setdefault(stage, unit)
            if metrics and stage not in begun:
                begun.add(stage)
                if job is not jobs[0]:
                    resumed.setdefault(stage, []).append(step)
            for name, told in metrics:
                found.setdefault((stage, name), {})[step] = told
    return _arranged(found, units, resumed)


def _lines(job: JobStory) -> Iterable[tuple[str, int, str, list[tuple[str, float]]]]:
    for row in job.rows:
        step = number(row.get("step"))
        if step is None:
            continue
        values = [(str(key), number(value)) for key, value in row.items() if key not in KEYS]
        metrics = [(name, told) for name, told in values if told is not None]
        yield str(row.get("stage", "")), int(step), str(row.get("unit", "step")), metrics


def _arranged(
    found: dict[tuple[str, str], dict[int, float]], units: dict[str, str], resumed: dict[str, list[int]]
) -> Curves:
    groups: dict[tuple[str, str], list[Series]] = {}
    single = []
    for (stage, name), values in found.items():
        if len(values) < 2:
            single += [(stage, name, told) for told in values.values()]
            continue
        part, title = _named(name)
        groups.setdefault((stage, title), []).append(Series(part, tuple(sorted(values.items()))))
    ordered = sorted(groups, key=lambda key: (key[1] in PACE, key[1] != "loss"))
    charts = [
        Chart(
            title.replace("_", " "), stage, units[stage], _in_order(groups[stage, title]), tuple(resumed.get(stage, ()))
        )
        for stage, title in ordered
    ]
    return Curves(tuple(charts[:CHARTS]), tuple(single), max(0, len(charts) - CHARTS))


def _in_order(series: list[Series]) -> tuple[Series, ...]:
    """Training first: it has the first colour in every chart."""
    order = list(_PARTS.values())
    return tuple(sorted(series, key=lambda s: order.index(s.name) if s.name in order else len(order)))


def _named(metric: str) -> tuple[str, str]:
    """The part of the data, and what is measured on it. A bare loss is that of training."""
    told = _NAMED.match(metric)
    if told:
        return _PARTS[told[1]], told[2]
    return ("training" if metric == "loss" else "", metric)
