"""The prepare stage: from pictures and their description to shards of squares and an index of them."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dhctl.ray_jobs import report
from dhctl.ray_jobs.data.staged import cached, prefetched
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.cohorts import read_index, warn_of_skipped
from dhctl.ray_jobs.pipeline.split import PARTS, refuse_empty_parts
from dhctl.ray_jobs.pipeline.spread import Lost, Spread
from dhctl.ray_jobs.pipeline.tars import pack
from dhctl.ray_jobs.skin.listing import list_pictures
from dhctl.ray_jobs.skin.pictures import Picture, Skipped
from dhctl.ray_jobs.skin.settings import Settings
from dhctl.ray_jobs.skin.shards import SQUARE_SETTINGS, ShardNote, Square, StoredPicture, grouped, shard_key
from dhctl.ray_jobs.skin.split import parts_of_lesions, refuse_unlearnable_classes
from dhctl.ray_jobs.storage import Store

INDEX_SETTINGS = (*SQUARE_SETTINGS, "table", "classes", "seed", "validation_share", "test_share")
"""Settings that change the index."""


class UnreadablePictureError(Exception):
    """A picture cannot be decoded; the text says why."""


@dataclass(frozen=True)
class ShardTask:
    """The pictures of one shard."""

    pictures: tuple[Picture, ...]
    data: Store
    shards: Store
    settings: Settings

    @property
    def key(self) -> str:
        """Name of the shard."""
        return shard_key([picture.file for picture in self.pictures], self.settings)


@dataclass(frozen=True)
class Cohort:
    """What training and evaluation read: all usable pictures, and those left out."""

    classes: tuple[str, ...]
    pictures: tuple[StoredPicture, ...]
    skipped: tuple[Skipped, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over classes and pictures with their contents, lesions, labels and parts, in hex."""
        rows = sorted((p.image, p.sha256, p.lesion, p.label, p.part) for p in self.pictures)
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()

    def part(self, name: str) -> tuple[StoredPicture, ...]:
        """The pictures of one part of the split, in order of their names."""
        return tuple(sorted((p for p in self.pictures if p.part == name), key=lambda picture: picture.image))


def index_key(settings: Settings) -> str:
    """Name of the index for these settings, beneath the shards folder."""
    return f"index-{settings.digest(*INDEX_SETTINGS)}.json"


def read_cohort(shards: Store, settings: Settings) -> Cohort:
    """The cohort that `prepare` left. Raises RefusedInputError where it has not run with these settings."""
    content = read_index(shards, index_key(settings))
    return Cohort(
        tuple(content["classes"]),
        tuple(StoredPicture.from_json(picture) for picture in content["pictures"]),
        tuple(Skipped(**row) for row in content["skipped"]),
    )


def prepare(data: Store, shards: Store, settings: Settings, spread: Spread) -> Cohort:
    """Store all pictures of a data folder that are not stored yet, and write the index.

    Unreadable pictures are left out and named in a warning. Raises RefusedInputError where none is left, a part of the
    split is empty, or a class cannot be learned.
    """
    listing = list_pictures(data, settings)
    parts = parts_of_lesions(listing.pictures, settings)
    notes, lost = _notes(listing.pictures, data, shards, settings, spread)
    found = {square.image: (note.key, index, square) for note in notes for index, square in enumerate(note.squares)}
    skipped = (*listing.skipped, *lost, *(row for note in notes for row in note.skipped))
    warn_of_skipped("picture", [(row.image, row.reason) for row in skipped])
    if not found:
        raise RefusedInputError(f"no readable picture is left in {data.url}: {skipped[-1].image} {skipped[-1].reason}")
    pictures = []
    for picture in listing.pictures:
        if picture.name in found:
            key, index, square = found[picture.name]
            place = (picture.name, picture.label, picture.lesion, parts[picture.lesion])
            pictures.append(StoredPicture(*place, square.sha256, square.mean_rgb, key, index))
    refuse_empty_parts({picture.part for picture in pictures}, len({p.lesion for p in pictures}), "lesion")
    labels = {part: [p.label for p in pictures if p.part == part] for part in PARTS}
    refuse_unlearnable_classes(labels, listing.classes)
    cohort = Cohort(listing.classes, tuple(pictures), skipped)
    _write_index(cohort, shards, settings)
    return cohort


def prepare_shard(task: ShardTask) -> ShardNote:
    """Read the pictures of one shard, and write their squares and then the note.

    Where the store does not give a file, that picture is skipped and no note is left: the next `prepare` tries again.
    """
    squares, tiles, skipped, unread = [], [], [], 0
    data = cached(task.data)
    for picture in task.pictures:
        try:
            content = data.read(picture.file.key)
            tile = cut_square(content, task.settings.store_px)
        except (UnreadablePictureError, OSError) as error:
            skipped.append(Skipped(picture.name, str(error) or type(error).__name__))
            unread += isinstance(error, OSError)
            continue
        red, green, blue = (round(float(value), 3) for value in tile.mean(axis=(0, 1)))
        squares.append(Square(picture.name, hashlib.sha256(content).hexdigest(), (red, green, blue)))
        tiles.append(tile)
    tar = pack(tiles, task.settings.tile_format)
    note = ShardNote(task.key, hashlib.sha256(tar).hexdigest(), tuple(squares), tuple(skipped))
    task.shards.write(f"{note.key}.tar", tar)
    if not unread:
        task.shards.write_json(f"{note.key}.json", asdict(note))
    return note


def cut_square(content: bytes, side_px: int) -> NDArray[np.uint8]:
    """The middle of a picture, RGB (side_px, side_px, 3): its shorter side is shrunk to side_px, the rest cut off.

    In dermoscopy the lesion is in the middle. Raises UnreadablePictureError.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of pictures above 89 megapixels; none of a lesion is, and one of them fills a worker.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content))
            # A JPEG is decoded at a half, quarter or eighth where that is enough: several times quicker.
            opened.draft("RGB", (2 * side_px, 2 * side_px))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePictureError(f"cannot be decoded: {str(error) or type(error).__name__}") from error
    return np.asarray(ImageOps.fit(picture, (side_px, side_px), Image.Resampling.BICUBIC))


def _notes(
    pictures: Sequence[Picture], data: Store, shards: Store, settings: Settings, spread: Spread
) -> tuple[list[ShardNote], list[Skipped]]:
    """Notes of the shards that were there and of new ones; and the pictures that were lost with their worker."""
    groups = grouped(pictures, settings.shard_images)
    tasks = [ShardTask(tuple(group), data, shards, settings) for group in groups]
    there = {file.key for file in shards.files()}
    notes = [ShardNote.from_json(shards.read_json(f"{t.key}.json")) for t in tasks if f"{t.key}.json" in there]
    missing = [task for task in tasks if f"{task.key}.json" not in there]
    lost: list[Skipped] = []
    done = len(pictures) - sum(len(task.pictures) for task in missing)
    report.progress("prepare", done, len(pictures), unit="picture")
    for task, outcome in spread.each(prepare_shard, missing, _fetched_ahead):
        if isinstance(outcome, Lost):
            lost += [Skipped(picture.name, outcome.reason) for picture in task.pictures]
        else:
            notes.append(outcome)
        done += len(task.pictures)
        report.progress("prepare", done, len(pictures), unit="picture")
    return notes, lost


def _fetched_ahead(tasks: Sequence[ShardTask]) -> AbstractContextManager[None]:
    """The next pictures come into the cache while some are read."""
    keys = [picture.file.key for task in tasks for picture in task.pictures]
    return prefetched(tasks[0].data, keys) if keys else nullcontext()


def _write_index(cohort: Cohort, shards: Store, settings: Settings) -> None:
    shards.write_json(
        index_key(settings),
        {
            "settings": settings.model_dump(include=set(INDEX_SETTINGS)),
            "digest": cohort.digest,
            "classes": cohort.classes,
            "pictures": [asdict(picture) for picture in cohort.pictures],
            "skipped": [asdict(row) for row in cohort.skipped],
        },
    )
