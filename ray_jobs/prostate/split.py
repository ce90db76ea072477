"""Dealing patients into training, validation and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dhctl.ray_jobs.pipeline.split import Part, split_by_group
from dhctl.ray_jobs.prostate.labels import Case


def split_by_patient(cases: Sequence[Case], validation_share: float, test_share: float, seed: int) -> dict[str, Part]:
    """The part of each patient, by `split_by_group`: parts hold similar shares of each highest grade.

    All slides of a patient are in one part. Raises RefusedInputError where a part stays empty.
    """
    grade: dict[str, int] = defaultdict(int)
    for case in cases:
        grade[case.patient] = max(grade[case.patient], case.grade)
    return split_by_group(grade, validation_share, test_share, seed)
