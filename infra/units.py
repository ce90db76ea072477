"""Durations and sizes as a spec writes them: always with a unit, because "lease: 2" means nothing."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
LONGEST_S = 3650 * 86400
"""Ten years: dates with a longer duration added may not exist."""

LARGEST_BYTES = 2**60
"""An EiB."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def parse_duration(value: object) -> timedelta:
    """`"90s"`, `"30m"`, `"2h"`, `"1d12h"` as a timedelta. Raises ValueError with a sentence for anything else."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or not any(found.groups()):
        raise ValueError(f"{value!r} is not a duration; write a number with a unit, such as 90s, 30m, 2h or 1d12h")
    seconds = sum(int(n) * s for n, s in zip(found.groups(), (86400, 3600, 60, 1), strict=True) if n)
    if seconds > LONGEST_S:
        raise ValueError(f"{value!r} is no duration that anybody waits for; write a shorter one, such as 2h")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: 5400 s is `"1h30m"`. Whole seconds."""
    left, parts = int(value.total_seconds()), []
    for unit in "dhms":
        count, left = divmod(left, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: object) -> int:
    """`"2GiB"`, `"512MiB"`, `"1.5GB"` in bytes. Raises ValueError with a sentence for anything else."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or found[2] not in _BYTES:
        raise ValueError(f"{value!r} is not a size; write a number with a unit, such as 512MiB or 2GiB")
    size_bytes = float(found[1]) * _BYTES[found[2]]
    if size_bytes > LARGEST_BYTES:
        raise ValueError(f"{value!r} is no size that any machine has; write a smaller one, such as 2GiB")
    return int(size_bytes)


def format_size(size_bytes: float) -> str:
    """Bytes for people, in binary units with at most one decimal: 2147483648 is `"2 GiB"`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= _BYTES[unit]:
            return f"{size_bytes / _BYTES[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return f"{int(size_bytes)} B"


def _schema(pattern: str, example: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "examples": [example]}


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(_schema(r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$", "2h")),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(lambda size_bytes: f"{size_bytes}B", return_type=str, when_used="json"),
    WithJsonSchema(_schema(r"^\d+(\.\d+)?\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)$", "2GiB")),
]
