"""Round numbers for the ticks of axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

_TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * m for m in (1, 2, 5, 10, 15, 30)),
    *(3600 * h for h in (1, 2, 3, 6, 12)),
    *(86400 * d for d in (1, 2, 7, 14, 28)),
)


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    label: str


def ticks(low: float, high: float, about: int) -> list[Tick]:
    """About so many round numbers that span `low` to `high`; the outer ones may lie beyond."""
    if not high > low:
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    step = _round_step((high - low) / max(1, about))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = [number * step for number in range(first, last + 1)]
    return [Tick(at, _label(at, step)) for at in places]


def whole_ticks(low: int, high: int, about: int) -> list[Tick]:
    """About so many whole numbers within `low` to `high`, such as epochs."""
    step = max(1, math.ceil((high - low) / max(1, about)))
    while step > 1 and str(step).rstrip("0") not in ("1", "2", "5", "25"):
        step += 1
    first = low if step == 1 else math.ceil(low / step) * step
    return [Tick(float(at), f"{at:,}") for at in range(first, high + 1, step)]


def time_ticks(seconds: float, about: int) -> list[Tick]:
    """Times from 0 to `seconds`, at steps that clocks have; each `at` in seconds."""
    wanted = max(seconds, 1e-3) / max(1, about)
    step = next((s for s in _TIME_STEPS_S if s >= wanted), None) or math.ceil(wanted / 86400) * 86400
    if wanted < 0.5:
        step_s = _round_step(wanted)
        return [Tick(n * step_s, f"{n * step_s:g} s") for n in range(int(seconds / step_s) + 1)]
    return [Tick(float(at), _clock(at)) for at in range(0, int(seconds) + 1, step)]


def _round_step(wanted: float) -> float:
    """1, 2 or 5 times a power of ten, at least `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= wanted * (1 - 1e-9))


def _label(at: float, step: float) -> str:
    if abs(at) < step * 1e-6:
        return "0"
    if abs(at) >= 1e6 or step < 1e-4:
        return f"{at:.3g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{at:,.{digits}f}"


def _clock(seconds: int) -> str:
    if seconds == 0:
        return "0"
    if seconds % 86400 == 0:
        return f"{seconds // 86400} d"
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"
    if seconds % 60 == 0:
        return f"{seconds // 60} min"
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60}:{seconds % 60:02d}"
