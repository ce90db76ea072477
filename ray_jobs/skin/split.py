"""Which part each lesion is in: as the data says, else dealt out by lesion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.split import Part, split_by_group
from dhctl.ray_jobs.skin.pictures import Picture
from dhctl.ray_jobs.skin.settings import Settings


def parts_of_lesions(pictures: Sequence[Picture], settings: Settings) -> dict[str, Part]:
    """The part of each lesion: all of its pictures are in one.

    A split that the data brings is used as it is; one without a validation part gives validation_share of its training
    lesions to that. Raises RefusedInputError where a lesion is on both sides, or a part is empty.
    """
    if all(picture.part is None for picture in pictures):
        return split_by_group(
            _classes(pictures), settings.validation_share, settings.test_share, settings.seed, "lesion"
        )
    refuse_shared_lesions(pictures)
    parts = {picture.lesion: picture.part or "train" for picture in pictures}
    if "validation" in parts.values():
        return parts
    train = _classes([picture for picture in pictures if picture.part == "train"])
    report.warning("the data's split has no validation part; it is taken from training, by lesion (validation_share)")
    # The generic deal has three parts; its test part goes back to training.
    share = settings.validation_share
    dealt = split_by_group(train, share, share, settings.seed, "lesion")
    return parts | {lesion: part for lesion, part in dealt.items() if part == "validation"}


def refuse_shared_lesions(pictures: Sequence[Picture]) -> None:
    """Raise RefusedInputError where a given split has pictures of one lesion in two parts."""
    seen: dict[str, Picture] = {}
    for picture in pictures:
        other = seen.setdefault(picture.lesion, picture)
        if other.part != picture.part:
            raise RefusedInputError(
                f"lesion {picture.lesion} is on both sides of the split ({other.name} in {other.part}, {picture.name} "
                f"in {picture.part}); move all of its pictures to one side, or remove the split: one is then made"
            )


def refuse_unlearnable_classes(labels: Mapping[Part, Sequence[int]], classes: Sequence[str]) -> None:
    """Raise RefusedInputError for a class without a training picture; warn of classes that the test part lacks.

    `labels` are those of the pictures of each part.
    """
    held = {part: set(found) for part, found in labels.items()}
    for label, name in enumerate(classes):
        if label not in held["train"]:
            others = " and ".join(part for part in held if label in held[part])
            where = f"pictures in {others} only" if others else "no readable picture"
            raise RefusedInputError(
                f"class {name} has {where}, so it cannot be learned; add lesions of it, "
                "change the split (another job.params.seed), or leave its pictures out"
            )
    untested = [name for label, name in enumerate(classes) if label not in held["test"]]
    if untested:
        report.warning(f"no test picture is of class {', '.join(untested)}; the scores are over the other classes")


def _classes(pictures: Sequence[Picture]) -> dict[str, int]:
    """The stratum of each lesion: its class; of a lesion whose pictures differ, the rarest."""
    count = Counter(picture.label for picture in pictures)
    strata: dict[str, int] = {}
    for picture in pictures:
        known = strata.setdefault(picture.lesion, picture.label)
        strata[picture.lesion] = min(known, picture.label, key=lambda label: (count[label], label))
    return strata
