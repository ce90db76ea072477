"""What may go into a crate of what a job says: numbers under names, and a few words. All else is left out, not searched
for what is bad in it: a list of what may stay cannot forget a kind of patient identifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Rule = Callable[[Any], Any]
"""Gives the value as it may go into a crate; LEFT_OUT when it may not."""


class _LeftOut:
    """The one value that says: this may not go into a crate."""

    def __repr__(self) -> str:
        return "LEFT_OUT"


LEFT_OUT: Any = _LeftOut()

_NAME = re.compile(
    r"(?:[a-z]+|ci95|f1)(?:_(?:[a-z]+|at_\d{1,3}|f1|ci95|2d|3d))*"  # a name of a number: no digits, as an id has them
    r"|\d?\.\d{1,4}|\d"  # an operating point, such as false positives per scan
    r"|MEL|NV|BCC|AK|AKIEC|BKL|DF|VASC|SCC|UNK"  # the classes of ISIC 2018 and 2019
)
_LABEL = re.compile(r"[A-Za-z][\w .,:%()/+-]{0,79}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,40}")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
_VERSION = re.compile(r"[\w.!+ -]{1,60}")
_HEX = re.compile(r"(?:[a-z0-9]{2,12}:)?[0-9a-f]{12,128}")
DEEPEST = 4
LONGEST = 10_000


def number(value: Any) -> Any:
    """A finite number, true, false, or nothing."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return LEFT_OUT


def numbers(value: Any, depth: int = DEEPEST) -> Any:
    """Numbers, lists of them, and mappings of names to them; LEFT_OUT when nothing of it may stay."""
    match value:
        case dict() if depth:
            kept = {key: numbers(part, depth - 1) for key, part in value.items() if is_name(key)}
            found: Any = {key: part for key, part in kept.items() if part is not LEFT_OUT}
            return found or LEFT_OUT
        case list() | tuple() if depth and len(value) <= LONGEST:
            parts = [numbers(part, depth - 1) for part in value]
            return LEFT_OUT if any(part is LEFT_OUT for part in parts) else parts
        case _:
            return number(value)


def is_name(key: Any) -> bool:
    """Whether a key names a number, not a person: see _NAME."""
    return isinstance(key, str) and len(key) <= 60 and _NAME.fullmatch(key) is not None


def _matching(pattern: re.Pattern[str]) -> Rule:
    return lambda value: value if isinstance(value, str) and pattern.fullmatch(value) else LEFT_OUT


label = _matching(_LABEL)
"""A few words of plain text, such as a metric's name."""

word = _matching(_WORD)
"""One short word, such as a setting's choice."""

digest = _matching(_HEX)
"""A hash in hex, with or without its kind before it."""

version = _matching(_VERSION)
"""A version of a package."""


def setting(value: Any) -> Any:
    """A setting of a job that comes with dhctl: numbers and short words, in lists and mappings too."""
    match value:
        case dict():
            return _kept({key: setting(part) for key, part in value.items() if isinstance(key, str)})
        case list():
            parts = [setting(part) for part in value]
            return LEFT_OUT if any(part is LEFT_OUT for part in parts) else parts
        case str():
            return word(value)
        case _:
            return number(value)


def table(names: re.Pattern[str], rule: Rule) -> Rule:
    """A mapping whose keys match and whose values pass."""
    return lambda value: _kept({k: rule(v) for k, v in value.items() if names.fullmatch(str(k))}) if value else LEFT_OUT


packages = table(_DISTRIBUTION, version)
"""Versions by distribution."""


def pick(body: Any, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Of a mapping the keys that have a rule, with what their rules let through."""
    if not isinstance(body, Mapping):
        return {}
    return _kept({key: rule(body[key]) for key, rule in rules.items() if key in body})


def _kept(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not LEFT_OUT}


def _baselines(value: Any) -> Any:
    return [pick(one, _BASELINE) for one in value] if isinstance(value, list) else LEFT_OUT


_BASELINE: Mapping[str, Rule] = {"name": label, "value": number}

_METRIC: Mapping[str, Rule] = {
    "name": label,
    "value": number,
    "ci95": numbers,
    "baseline": lambda value: pick(value, _BASELINE),
    "baselines": _baselines,
}

_RESULT: Mapping[str, Rule] = {
    "job": word,
    "training": word,
    "metric": lambda value: pick(value, _METRIC),
    "settings": setting,
    "digests": table(re.compile(r"[a-z_]{1,40}"), digest),
    "versions": packages,
    "skipped": lambda value: len(value) if isinstance(value, list) else LEFT_OUT,
    "samples_per_s": lambda value: pick(value, {"median": number, "unit": word}) or numbers(value),
}
"""What is more than numbers, in the shape of the jobs that come with dhctl (CONTRIBUTING, "Add a job")."""


def result(body: Any, phantoms: bool) -> tuple[dict[str, Any], list[str]]:
    """A job's result as it may go into a crate, and the names of what was left out of its first level.

    `phantoms`: the data are generated, which the result then says in the job's own words.
    """
    if not isinstance(body, Mapping):
        return {}, []
    kept = pick(body, _RESULT)
    if phantoms and label(body.get("data")) is not LEFT_OUT:
        kept["data"] = body["data"]
    others = {key: numbers(value) for key, value in body.items() if key not in kept and is_name(key)}
    kept |= _kept({key: value for key, value in others.items() if key not in _RESULT})
    return kept, sorted(str(key) for key in body if key not in kept and key != "run")


_PROGRESS: Mapping[str, Rule] = {"stage": label, "unit": word, "step": number, "of": number}


def progress(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: stage, step, and the metrics."""
    return [
        {**_kept({k: number(v) for k, v in row.items() if is_name(k) and k not in _PROGRESS}), **pick(row, _PROGRESS)}
        for row in rows
    ]
