"""Dealing groups of samples (patients, lesions) into training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Mapping, Set
from typing import Literal

from dhctl.ray_jobs.environment import RefusedInputError

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")


def split_by_group(
    strata: Mapping[str, int], validation_share: float, test_share: float, seed: int, group: str = "patient"
) -> dict[str, Part]:
    """The part of each group; parts hold similar shares of each stratum.

    `strata` gives each group's stratum, such as its grade or class; `group` is what messages call one. Groups are
    ordered by stratum (ties by a seeded shuffle) and dealt out so that each part's count is never more than one group
    away from its share. Raises RefusedInputError where a part stays empty.
    """
    groups = sorted(strata)
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda name: strata[name])
    shares: dict[Part, float] = {
        "train": 1 - validation_share - test_share,
        "test": test_share,
        "validation": validation_share,
    }
    held: dict[Part, int] = dict.fromkeys(shares, 0)
    parts: dict[str, Part] = {}
    for dealt, name in enumerate(groups, start=1):
        part = max(shares, key=lambda name: shares[name] * dealt - held[name])
        held[part] += 1
        parts[name] = part
    refuse_empty_parts(set(parts.values()), len(groups), group)
    return parts


def refuse_empty_parts(found: Set[Part], groups: int, group: str = "patient") -> None:
    """Raise RefusedInputError unless all three parts have someone."""
    for part in PARTS:
        if part not in found:
            step = "lower test_share" if part == "train" else f"add {group}s or raise {part}_share"
            raise RefusedInputError(f"the {part} part of the split is empty with {groups} {group}s; {step}")
