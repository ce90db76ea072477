"""Numbers, times and output as people read them on the page."""

from __future__ import annotations

import re
from datetime import UTC, datetime

LONGEST_LINE = 400
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def duration(seconds: float | None) -> str:
    """`9.4 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`; a dash where it is not known."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for size, unit, small_size, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            many, rest = divmod(whole, size)
            few = rest // small_size
            return f"{many} {unit}" + (f" {few} {small}" if few else "")
    return f"{whole} s"


def moment(at: datetime | None) -> str:
    """`2026-11-27 22:16:03 UTC`; a dash where it is not known."""
    return "–" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def value(number: float) -> str:
    """Four significant digits, without an exponent where one can do without it: 0.9846, 12.3, 1,250."""
    size = abs(number)
    if size and (size < 1e-3 or size >= 1e7):
        return f"{number:.3g}"
    if size >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"


def hours(number: float | None) -> str:
    """Hours of use: `0.008`, `12.5`, `1,250`; a dash where they are not known."""
    if number is None:
        return "–"
    if 0 < number < 0.001:
        return "< 0.001"
    return f"{number:,.1f}" if number >= 10 else f"{number:.3f}".rstrip("0").rstrip(".")


def money(amount: float | None, currency: str) -> str:
    """`12.34 EUR`; small amounts with more digits; a dash where it is not known."""
    if amount is None:
        return "–"
    digits = 2 if amount >= 1 or amount == 0 else 4
    return f"{amount:,.{digits}f} {currency}"


def plain(text: str) -> str:
    """A line of output without colours and control characters, cut where it is very long."""
    bare = _CONTROL.sub("", text)
    return bare if len(bare) <= LONGEST_LINE else f"{bare[:LONGEST_LINE]} [{len(bare) - LONGEST_LINE} more]"
