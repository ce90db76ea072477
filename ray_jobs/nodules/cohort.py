"""All usable scans of a data store, prepared, and dealt to training, validation and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.dicom_index import find_series
from dhctl.ray_jobs.nodules.luna16 import find_luna16
from dhctl.ray_jobs.nodules.nifti_folder import find_nifti
from dhctl.ray_jobs.nodules.preparation import ScanTask, fetched_ahead, prepare_scan
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.shards import SCAN_SETTINGS, PreparedScan, ShardNote, shard_key
from dhctl.ray_jobs.nodules.sources import Found, Skipped, Source
from dhctl.ray_jobs.nodules.table import applied, read_table, refuse_divided_patients
from dhctl.ray_jobs.pipeline.cohorts import read_index, warn_of_skipped
from dhctl.ray_jobs.pipeline.split import PARTS, Part, refuse_empty_parts, split_by_group
from dhctl.ray_jobs.pipeline.spread import Lost, Spread
from dhctl.ray_jobs.storage import Store

INDEX_SETTINGS = (*SCAN_SETTINGS, "seed", "validation_share", "test_share")
"""Settings that change the index."""

NOT_DICOM = (".mhd", ".raw", ".zraw", ".nii", ".nii.gz", ".csv", ".json", ".txt")


@dataclass(frozen=True)
class Cohort:
    """What training and evaluation read: all usable scans, and those left out."""

    scans: tuple[PreparedScan, ...]
    skipped: tuple[Skipped, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over scans, contents, patients, nodules and parts, in hex."""
        rows = sorted(
            (scan.shard.scan, scan.shard.content_sha256, scan.patient, scan.part, *map(astuple, scan.shard.nodules))
            for scan in self.scans
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def part(self, name: str) -> list[PreparedScan]:
        """The scans of one part of the split, in order of their names."""
        return sorted((scan for scan in self.scans if scan.part == name), key=lambda scan: scan.shard.scan)


def find_sources(data: Store, spread: Spread, with_masks: bool = True) -> Found:
    """All scans of a store, in any of the three layouts, as its table says. Raises RefusedInputError."""
    files = [file for file in data.files(deep=True) if not file.key.rsplit("/", 1)[-1].startswith(".")]
    others = [file for file in files if not file.key.lower().endswith(NOT_DICOM)]
    held = (
        find_luna16(data, files, with_masks),
        find_nifti(files, with_masks),
        find_series(data, others, spread, with_masks),
    )
    found = Found(
        tuple(source for one in held for source in one.sources), tuple(row for one in held for row in one.skipped)
    )
    if not found.sources and not found.skipped:
        raise RefusedInputError(
            f"{data.url} holds no scan; put DICOM series with DICOM-SEG, NIfTI with masks, or LUNA16 into it"
        )
    return applied(read_table(data), found)


def read_cohort(shards: Store, settings: Settings) -> Cohort:
    """The cohort that `prepare` left. Raises RefusedInputError where it has not run with these settings."""
    content = read_index(shards, _index_key(settings))
    return Cohort(
        tuple(PreparedScan.from_json(scan) for scan in content["scans"]),
        tuple(Skipped(**row) for row in content["skipped"]),
    )


def prepare(data: Store, shards: Store, settings: Settings, spread: Spread) -> Cohort:
    """Prepare all scans of a data folder that are not prepared yet, and write the index.

    Unusable scans are left out and named in a warning. Raises RefusedInputError where none is left, or where a part of
    the split would be empty or without nodules.
    """
    found = find_sources(data, spread)
    refuse_divided_patients(found.sources)
    notes, unusable = _notes(found.sources, data, shards, settings, spread)
    skipped = tuple(sorted((*found.skipped, *unusable), key=lambda row: row.scan))
    _warn(skipped, found.sources)
    if not notes:
        raise RefusedInputError(f"no usable scan is left in {data.url}: {skipped[0].scan} {skipped[0].reason}")
    used = [source for source in found.sources if source.scan in notes]
    parts = _parts(used, notes, settings)
    scans = tuple(PreparedScan(notes[source.scan], source.patient, parts[source.patient]) for source in used)
    _refuse_without_nodules(scans)
    cohort = Cohort(scans, skipped)
    shards.write_json(
        _index_key(settings),
        {
            "settings": settings.model_dump(include=set(INDEX_SETTINGS), mode="json"),
            "digest": cohort.digest,
            "scans": [asdict(scan) for scan in scans],
            "skipped": [asdict(row) for row in skipped],
        },
    )
    return cohort


def _notes(
    sources: Sequence[Source], data: Store, shards: Store, settings: Settings, spread: Spread
) -> tuple[dict[str, ShardNote], list[Skipped]]:
    """Notes by scan, of shards that were there and of new ones; and the scans that could not be used."""
    there = {file.key for file in shards.files()}
    notes: dict[str, ShardNote] = {}
    tasks = []
    for source in sources:
        key = f"{shard_key(source, settings)}.json"
        if key in there:
            notes[source.scan] = ShardNote.from_json(shards.read_json(key))
        else:
            tasks.append(ScanTask(source, data, shards, settings))
    unusable: list[Skipped] = []
    report.progress("prepare", len(notes), len(sources), unit="scan")
    shown_at = max(1, len(sources) // 10)
    for done, (task, outcome) in enumerate(spread.each(prepare_scan, tasks, fetched_ahead), start=1):
        match outcome:
            case ShardNote():
                notes[outcome.scan] = outcome
            case Skipped():
                unusable.append(outcome)
            case Lost(reason):
                unusable.append(Skipped(task.source.scan, reason))
        if done % shown_at == 0 or done == len(tasks):
            report.progress("prepare", len(sources) - len(tasks) + done, len(sources), unit="scan")
    return notes, unusable


def _parts(sources: Sequence[Source], notes: Mapping[str, ShardNote], settings: Settings) -> dict[str, Part]:
    """The part of each patient: what the table says, else dealt so that parts are alike in nodules a patient."""
    told = {source.patient: source.part for source in sources if source.part is not None}
    if told:
        refuse_empty_parts(set(told.values()), len(told))
        return told
    nodules: dict[str, int] = {}
    for source in sources:
        nodules[source.patient] = nodules.get(source.patient, 0) + len(notes[source.scan].nodules)
    return split_by_group(nodules, settings.validation_share, settings.test_share, settings.seed)


def _refuse_without_nodules(scans: Sequence[PreparedScan]) -> None:
    for part in PARTS:
        held = [scan for scan in scans if scan.part == part]
        if not any(scan.shard.nodules for scan in held):
            raise RefusedInputError(
                f"the {part} part has {len(held)} scans but no nodule; add scans with nodules, or check the masks"
            )


def _warn(skipped: Sequence[Skipped], sources: Sequence[Source]) -> None:
    warn_of_skipped("scan", [(row.scan, row.reason) for row in skipped])
    alone = [source for source in sources if source.form != "dicom" and source.patient == source.scan]
    if alone:
        report.warning(
            f"{len(alone)} scans name no patient and count as a patient each: scans of one patient may be on both "
            "sides of the split, and the score may be too good; name patients in scans.csv"
        )


def _index_key(settings: Settings) -> str:
    return f"index-{settings.digest(*INDEX_SETTINGS)}.json"
