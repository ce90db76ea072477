"""The learning rate as a function of samples seen: it does not change when the number of workers does."""

from __future__ import annotations

import math

WARM_UP_SHARE = 0.1
"""Share of the schedule in which the learning rate rises."""


def learning_rate(seen: int, total: int, peak: float) -> float:
    """One cycle over samples seen of `total`: linear rise, then half a cosine down to 1 % of the peak."""
    rise = WARM_UP_SHARE * total
    if seen < rise:
        return peak * (seen + 1) / (rise + 1)
    share = (seen - rise) / max(1.0, total - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
