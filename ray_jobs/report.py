"""How a job tells dhctl how far it is: lines `@dhctl ` + compact JSON on the job's stdout.

Any job may call these functions, yours too; only the standard library is needed. Three lines exist:

    @dhctl {"type":"progress","stage":"train","step":3,"of":20,"unit":"epoch","metrics":{"loss":0.41}}
    @dhctl {"type":"result","result":{...}}
    @dhctl {"type":"warning","text":"..."}

A fourth, `environment`, is the launcher's (launch.py): which Python and packages the job found.

Print from the job's driver where you can. What a Ray worker prints reaches the driver's stdout as
`(RayTrainWorker pid=7, ip=10.0.0.2) @dhctl ...`, in colour; `parse` reads that as well, but Ray may hold back a line
that looks like another worker's (set RAY_DEDUP_LOGS_ALLOW_REGEX=@dhctl in the job's environment against it).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MARK = "@dhctl "
"""How a line of the protocol begins."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAY_PREFIX = re.compile(r"^\s*\([^()]*\bpid=\d+[^()]*\)\s+")
"""Ray puts `(name pid=.., ip=..) ` before what a task or actor prints."""


@dataclass(frozen=True)
class Progress:
    """A stage has done `step` of `of` units."""

    stage: str
    step: int
    of: int
    unit: str = "epoch"
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What the job found: its result.json."""

    result: Mapping[str, Any]


@dataclass(frozen=True)
class Notice:
    """A warning: the job goes on, but a person should read this."""

    text: str


@dataclass(frozen=True)
class Environment:
    """What the job's driver runs in, as the launcher found it: versions of Python and of all packages, by name."""

    python: str
    platform: str
    packages: Mapping[str, str]


Message = Progress | Result | Notice | Environment


def progress(stage: str, step: int, of: int, metrics: Mapping[str, float] | None = None, unit: str = "epoch") -> None:
    """Say that `step` of `of` units of a stage are done; metrics that are not finite numbers are left out."""
    finite = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
    _emit({"type": "progress", "stage": stage, "step": int(step), "of": int(of), "unit": unit, "metrics": finite})


def result(values: Mapping[str, Any]) -> None:
    """Hand over the job's result; the last one of a job counts. Raises ValueError for NaN, TypeError for non-JSON."""
    _emit({"type": "result", "result": dict(values)})


def warning(text: str) -> None:
    """Say something a person should read although the job goes on."""
    _emit({"type": "warning", "text": " ".join(text.split())})


def parse(line: str) -> Message | None:
    """The message in a line of job output, or None: anything malformed is ordinary output, never an error."""
    bare = _RAY_PREFIX.sub("", _COLOUR.sub("", line))
    if not bare.startswith(MARK):
        return None
    try:
        content = json.JSONDecoder().raw_decode(bare[len(MARK) :].lstrip())[0]
    except (ValueError, RecursionError):
        return None
    return _message(content) if isinstance(content, dict) else None


def _message(content: Mapping[str, Any]) -> Message | None:
    match content:
        case {"type": "progress", "stage": str(stage), "step": int(step), "of": int(of)}:
            unit, metrics = content.get("unit", "epoch"), content.get("metrics", {})
            if not isinstance(unit, str) or not isinstance(metrics, dict):
                return None
            numbers = {str(name): float(value) for name, value in metrics.items() if _is_finite(value)}
            return Progress(stage=stage, step=step, of=of, unit=unit, metrics=numbers)
        case {"type": "result", "result": dict(values)}:
            return Result(values)
        case {"type": "warning", "text": str(text)}:
            return Notice(text)
        case {"type": "environment", "python": str(python), "platform": str(platform), "packages": dict(packages)}:
            return Environment(python, platform, {str(name): str(version) for name, version in packages.items()})
        case _:
            return None


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _emit(content: Mapping[str, Any]) -> None:
    # One write and a flush: lines of threads do not mix, and the client sees a line when it is written.
    sys.stdout.write(MARK + json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
    sys.stdout.flush()
