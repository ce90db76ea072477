"""Amounts as Kubernetes writes them: 500m CPU, 2Gi memory, 4 GPUs."""

from __future__ import annotations

import re
from decimal import Decimal

from dhctl.infra.units import format_size

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPEK]?i?)")


def parse(text: object) -> Decimal:
    """`"500m"` is 0.5, `"2Gi"` is 2147483648. Raises ValueError for anything else."""
    found = _QUANTITY.fullmatch(str(text).strip())
    if not found or found[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def told(kind: str, amount: Decimal) -> str:
    """For people: memory and storage in binary units, all else as a plain number."""
    if "memory" in kind or "storage" in kind:
        return format_size(float(amount))
    return f"{amount.normalize():f}"
