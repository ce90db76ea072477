"""What the cohorts of all jobs have in common: their index beneath the shards, and how cases left out are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import Store

SHOWN_WARNINGS = 20
"""More warnings than this about single cases are summed up in one."""


def read_index(shards: Store, key: str) -> dict[str, Any]:
    """The index that `prepare` left. Raises RefusedInputError where it has not run with these settings."""
    try:
        content: dict[str, Any] = shards.read_json(key)
    except FileNotFoundError as error:
        raise RefusedInputError(
            f"{shards.url} has no shards for these settings; run the stage prepare first"
        ) from error
    return content


def warn_of_skipped(sample: str, skipped: Sequence[tuple[str, str]]) -> None:
    """Name the cases left out, given as (name, reason); `sample` is what one is called: slide, scan, picture."""
    for name, reason in skipped[:SHOWN_WARNINGS]:
        report.warning(f"{sample} {name} is skipped: {reason}")
    if len(skipped) > SHOWN_WARNINGS:
        report.warning(f"{len(skipped)} {sample}s are skipped in all; result.json names each")
