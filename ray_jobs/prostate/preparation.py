"""The prepare stage: from slides and a table to shards and an index of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from dhctl.ray_jobs import report
from dhctl.ray_jobs.data.staged import prefetched, staged
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.cohorts import read_index, warn_of_skipped
from dhctl.ray_jobs.pipeline.split import refuse_empty_parts
from dhctl.ray_jobs.pipeline.spread import Lost, Spread
from dhctl.ray_jobs.prostate.labels import LocatedCase, locate, read_cases
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.shards import TILE_SETTINGS, Bag, ShardNote, shard_key, write_shard
from dhctl.ray_jobs.prostate.slides import UnreadableSlideError, open_slide
from dhctl.ray_jobs.prostate.split import split_by_patient
from dhctl.ray_jobs.prostate.tiles import tissue_tiles
from dhctl.ray_jobs.storage import Store

SPLIT_SETTINGS = ("seed", "validation_share", "test_share")


@dataclass(frozen=True)
class Skipped:
    """A slide of the table that is left out, and why."""

    slide: str
    reason: str


@dataclass(frozen=True)
class SlideTask:
    """One slide to cut into tiles."""

    located: LocatedCase
    data: Store
    shards: Store
    settings: Settings

    @property
    def keys(self) -> list[str]:
        """Of the slide's files, the slide first."""
        return [key for key, _, _ in self.located.files]


@dataclass(frozen=True)
class Cohort:
    """What training and evaluation read: all usable slides, and those left out."""

    bags: tuple[Bag, ...]
    skipped: tuple[Skipped, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over slides, contents, patients and grades, in hex."""
        rows = sorted((bag.shard.slide, bag.shard.slide_sha256, bag.patient, bag.grade) for bag in self.bags)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def part(self, name: str) -> list[Bag]:
        """The slides of one part of the split, in order of their names."""
        return sorted((bag for bag in self.bags if bag.part == name), key=lambda bag: bag.shard.slide)


def index_key(settings: Settings) -> str:
    """Name of the index for these settings, beneath the shards folder."""
    return f"index-{settings.digest(*TILE_SETTINGS, *SPLIT_SETTINGS)}.json"


def read_cohort(shards: Store, settings: Settings) -> Cohort:
    """The cohort that `prepare` left. Raises RefusedInputError where it has not run with these settings."""
    content = read_index(shards, index_key(settings))
    return Cohort(
        tuple(Bag.from_json(bag) for bag in content["bags"]), tuple(Skipped(**row) for row in content["skipped"])
    )


def prepare(data: Store, shards: Store, settings: Settings, spread: Spread) -> Cohort:
    """Cut all slides of a data folder that are not cut yet, and write the index.

    Unreadable slides are left out and named in a warning. Raises RefusedInputError where none is left, or a part of
    the split is empty.
    """
    cases = read_cases(data)
    parts = split_by_patient(cases, settings.validation_share, settings.test_share, settings.seed)
    located = locate(data, cases)
    notes, skipped = _notes(located, data, shards, settings, spread)
    _warn(notes, skipped)
    if not notes:
        first = f": {skipped[0].slide} {skipped[0].reason}" if skipped else ""
        raise RefusedInputError(f"no readable slide is left in {data.url}{first}; check the slides and the table")
    bags = tuple(
        Bag(notes[case.slide], case.patient, case.grade, parts[case.patient]) for case in cases if case.slide in notes
    )
    refuse_empty_parts({bag.part for bag in bags}, len({bag.patient for bag in bags}))
    cohort = Cohort(bags, tuple(skipped))
    shards.write_json(
        index_key(settings),
        {
            "settings": settings.model_dump(include={*TILE_SETTINGS, *SPLIT_SETTINGS}),
            "digest": cohort.digest,
            "bags": [asdict(bag) for bag in bags],
            "skipped": [asdict(row) for row in skipped],
        },
    )
    return cohort


def prepare_slide(task: SlideTask) -> ShardNote | Skipped:
    """Cut one slide into a shard; a slide that cannot be used comes back as Skipped."""
    case = task.located.case
    try:
        with staged(task.data, task.keys) as paths:
            with open_slide(paths[0], task.settings.assumed_um_per_px) as slide:
                tiles = tissue_tiles(slide, task.settings)
                um_per_px, note = slide.um_per_px, slide.note
            digest = _sha256(paths)
    except (UnreadableSlideError, OSError) as error:
        return Skipped(case.slide, str(error) or type(error).__name__)
    red, green, blue = (round(float(value), 3) for value in tiles.mean(axis=(0, 1, 2)))
    unwritten = ShardNote(
        key=shard_key(task.located, task.settings),
        slide=case.slide,
        slide_sha256=digest,
        tar_sha256="",
        tiles=len(tiles),
        um_per_px=um_per_px,
        note=note,
        mean_rgb=(red, green, blue),
    )
    return write_shard(task.shards, unwritten, tiles, task.settings.tile_format)


def _notes(
    located: Sequence[LocatedCase], data: Store, shards: Store, settings: Settings, spread: Spread
) -> tuple[dict[str, ShardNote], list[Skipped]]:
    """Notes by slide, of shards that were there and of new ones; and the slides that could not be used."""
    skipped = [Skipped(row.case.slide, "no file of this name is in the data folder") for row in located if not row.key]
    present = [row for row in located if row.key]
    notes = _known_notes(shards, {shard_key(row, settings) for row in present})
    tasks = [SlideTask(row, data, shards, settings) for row in present if shard_key(row, settings) not in notes]
    found = {note.slide: note for note in notes.values()}
    report.progress("prepare", len(found), len(present), unit="slide")
    shown_at = max(1, len(present) // 10)
    for done, (task, outcome) in enumerate(spread.each(prepare_slide, tasks, _fetched_ahead), start=1):
        match outcome:
            case ShardNote():
                found[outcome.slide] = outcome
            case Skipped():
                skipped.append(outcome)
            case Lost(reason):
                skipped.append(Skipped(task.located.case.slide, reason))
        if done % shown_at == 0 or done == len(tasks):
            report.progress("prepare", len(present) - len(tasks) + done, len(present), unit="slide")
    return found, sorted(skipped, key=lambda row: row.slide)


def _known_notes(shards: Store, wanted: set[str]) -> dict[str, ShardNote]:
    """Notes of the wanted shards that are there. Indexes are read first: they hold thousands of notes in one file."""
    keys = [file.key for file in shards.files() if file.key.endswith(".json")]
    notes: dict[str, ShardNote] = {}
    for key in (key for key in keys if key.startswith("index-")):
        for bag in shards.read_json(key)["bags"]:
            notes[bag["shard"]["key"]] = ShardNote.from_json(bag["shard"])
    for key in wanted & {key.removesuffix(".json") for key in keys} - set(notes):
        notes[key] = ShardNote.from_json(shards.read_json(f"{key}.json"))
    return {key: notes[key] for key in wanted if key in notes}


def _fetched_ahead(tasks: Sequence[SlideTask]) -> AbstractContextManager[None]:
    """The next slides come into the cache while one is cut."""
    return prefetched(tasks[0].data, [key for task in tasks for key in task.keys]) if tasks else nullcontext()


def _sha256(paths: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _warn(notes: dict[str, ShardNote], skipped: Sequence[Skipped]) -> None:
    warn_of_skipped("slide", [(row.slide, row.reason) for row in skipped])
    for note, count in Counter(note.note for note in notes.values() if note.note).items():
        slide = min(found.slide for found in notes.values() if found.note == note)
        report.warning(f"{count} slides, such as {slide}: each {note}")
