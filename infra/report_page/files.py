"""Reading what a record holds, where any part may be missing, torn or of another version: never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_object(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a file; None when there is none, or it cannot be read as one."""
    try:
        body = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file with one JSON object a line; lines that are none are passed over."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row
    except OSError:
        return


def number(value: object) -> float | None:
    """A finite number as it is; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number beyond every float
        return None
    return found if math.isfinite(found) else None
