"""NIfTI volumes with masks: NAME.nii.gz beside NAME_mask.nii.gz, or imagesTr/NAME beside labelsTr/NAME (as in MSD)."""

from __future__ import annotations

from collections.abc import Sequence

from dhctl.ray_jobs.nodules.sources import Found, Skipped, Source
from dhctl.ray_jobs.storage import StoredFile

SUFFIXES = (".nii.gz", ".nii")
MASK_ENDINGS = ("_mask", "-mask", "_seg", "-seg")
MASK_FOLDERS = {"imagesTr": "labelsTr", "images": "masks"}


def find_nifti(files: Sequence[StoredFile], with_masks: bool) -> Found:
    """Volumes with their masks; without `with_masks`, all volumes. The name is taken as the patient: see scans.csv."""
    stems = {_stem(file.key): file for file in sorted(files, key=lambda one: one.key) if _stem(file.key)}
    masks = {stem: file for stem, file in stems.items() if _is_mask(stem)}
    sources, skipped = [], []
    for stem, file in stems.items():
        if stem in masks:
            continue
        name = stem.rsplit("/", 1)[-1]
        mask = next((masks[other] for other in _mask_stems(stem) if other in masks), None)
        if with_masks and mask is None:
            skipped.append(Skipped(name, f"has no mask; put it beside the scan as {name}_mask.nii.gz"))
        else:
            sources.append(Source(name, name, "nifti", (file,), (mask,) if mask and with_masks else ()))
    return Found(tuple(sources), tuple(skipped))


def _stem(key: str) -> str:
    """The key without its ending, or "" where it is no NIfTI file."""
    return next((key[: -len(suffix)] for suffix in SUFFIXES if key.lower().endswith(suffix)), "")


def _is_mask(stem: str) -> bool:
    folders = stem.split("/")[:-1]
    return stem.endswith(MASK_ENDINGS) or bool(set(folders) & set(MASK_FOLDERS.values()))


def _mask_stems(stem: str) -> list[str]:
    folder, _, name = stem.rpartition("/")
    above, _, last = folder.rpartition("/")
    beside = [f"{stem}{ending}" for ending in MASK_ENDINGS]
    if last in MASK_FOLDERS:
        beside.append("/".join(part for part in (above, MASK_FOLDERS[last], name) if part))
    return beside
