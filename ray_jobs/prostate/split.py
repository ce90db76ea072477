"""Dealing patients into training, validation and test."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.labels import Case

Part = Literal["train", "validation", "test"]


def split_by_patient(cases: Sequence[Case], validation_share: float, test_share: float, seed: int) -> dict[str, Part]:
    """The part of each patient. All slides of a patient are in one part; parts hold similar shares of each grade.

    Patients are ordered by their highest grade (ties by a seeded shuffle) and dealt out so that each part's count is
    never more than one patient away from its share. Raises RefusedInputError where a part stays empty.
    """
    grade: dict[str, int] = defaultdict(int)
    for case in cases:
        grade[case.patient] = max(grade[case.patient], case.grade)
    patients = sorted(grade)
    random.Random(seed).shuffle(patients)
    patients.sort(key=lambda patient: grade[patient])
    shares: dict[Part, float] = {
        "train": 1 - validation_share - test_share,
        "test": test_share,
        "validation": validation_share,
    }
    held: dict[Part, int] = dict.fromkeys(shares, 0)
    parts: dict[str, Part] = {}
    for dealt, patient in enumerate(patients, start=1):
        part = max(shares, key=lambda name: shares[name] * dealt - held[name])
        held[part] += 1
        parts[patient] = part
    refuse_empty_parts(set(parts.values()), len(patients))
    return parts


def refuse_empty_parts(found: set[Part], patients: int) -> None:
    """Raise RefusedInputError unless all three parts have someone."""
    for part in ("train", "validation", "test"):
        if part not in found:
            raise RefusedInputError(
                f"the {part} part of the split is empty with {patients} patients; add patients or raise {part}_share"
                if part != "train"
                else f"the train part of the split is empty with {patients} patients; lower test_share"
            )
