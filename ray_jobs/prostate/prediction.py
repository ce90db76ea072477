"""The predict stage: a grade and heat maps for every slide of a folder or bucket, with or without a table."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import posixpath
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dhctl.ray_jobs import report
from dhctl.ray_jobs.data.staged import prefetched, staged
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.cohorts import SHOWN_WARNINGS
from dhctl.ray_jobs.pipeline.job import Job, told
from dhctl.ray_jobs.pipeline.spread import Lost
from dhctl.ray_jobs.prostate.heat_maps import TOLD, look_at, maps
from dhctl.ray_jobs.prostate.labels import without_suffix
from dhctl.ray_jobs.prostate.model import SlideGrader, build_model
from dhctl.ray_jobs.prostate.preparation import Skipped
from dhctl.ray_jobs.prostate.settings import GRADES, Settings
from dhctl.ray_jobs.prostate.slides import SUFFIXES, UnreadableSlideError, open_slide
from dhctl.ray_jobs.storage import Store, StoredFile, open_store
from dhctl.ray_jobs.training.fit import MODEL_FILE, read_model

FOLDER = "predictions"
TABLE = f"{FOLDER}/grades.csv"

FORMAT = "1"
"""Raised when the same model makes other maps of the same slide."""

WITH_NEIGHBOURS = (".dcm", ".vms")
"""Slides of several files in a folder of their own."""


@dataclass(frozen=True)
class SlideFiles:
    """A slide of the data store and all of its files, the one to open first."""

    slide: str
    """Its path without file ending: the name of its results."""
    files: tuple[StoredFile, ...]

    @property
    def keys(self) -> list[str]:
        """Keys of the files."""
        return [file.key for file in self.files]


@dataclass(frozen=True)
class PredictTask:
    """One slide to look at."""

    found: SlideFiles
    data: Store
    output: Store
    model: str
    """Folder or s3:// URL of the output that holds model.pt."""
    settings: Settings
    """Of this job; what shapes tiles comes from the model's training."""


@dataclass(frozen=True)
class Predicted:
    """What was found on a slide."""

    slide: str
    isup_grade: int
    expected_grade: float
    tiles: int
    um_per_px: float
    """Resolution of level 0 that was used."""
    key: str
    """Digest of the slide's files and the model: equal ones are not looked at again."""
    earlier: bool = False
    """Whether an earlier run did it."""


@dataclass(frozen=True)
class Model:
    """A trained network, the settings of its training, and a digest of both."""

    net: SlideGrader
    settings: Settings
    digest: str


def predict(job: Job[Settings], data: Store) -> dict[str, Any]:
    """Look at every slide of a store that was not looked at yet; a slide that fails does not stop the others.

    Gives a summary. Raises RefusedInputError where no slide could be looked at.
    """
    found = find_slides(data)
    if not found:
        raise RefusedInputError(f"{data.url} has no slide ({', '.join(SUFFIXES)}); check the folder")
    tasks = [PredictTask(slide, data, job.output, job.trained.place, job.settings) for slide in found]
    done: list[Predicted] = []
    failed: list[Skipped] = []
    outcomes = job.model_spread.each(predict_slide, tasks, _fetched_ahead)
    for task, outcome in told("predict", "slide", outcomes, len(tasks)):
        match outcome:
            case Predicted():
                done.append(outcome)
            case Skipped():
                failed.append(outcome)
            case Lost(reason):
                failed.append(Skipped(task.found.slide, reason))
    failed.sort(key=lambda row: row.slide)
    for row in failed[:SHOWN_WARNINGS]:
        report.warning(f"slide {row.slide} is left out: {row.reason}")
    if not done:
        raise RefusedInputError(
            f"no slide of {data.url} could be looked at: {failed[0].slide} {failed[0].reason}; check the slides"
        )
    _write_table(job.output, done)
    grades = Counter(one.isup_grade for one in done)
    return {
        "slides": len(done),
        "by_an_earlier_run": sum(one.earlier for one in done),
        "grades": {str(grade): grades[grade] for grade in range(GRADES)},
        "failed": [asdict(row) for row in failed],
        "maps": job.output.beneath(FOLDER).url,
        "table": TABLE,
    }


def find_slides(data: Store) -> list[SlideFiles]:
    """All slides of a store and its subfolders, by name; maps that an earlier run wrote there are none."""
    files = data.files(deep=True)
    beside: dict[str, list[StoredFile]] = {}
    for file in files:
        beside.setdefault(posixpath.dirname(file.key), []).append(file)
    slides: dict[str, SlideFiles] = {}
    for file in files:
        ending, folder = posixpath.splitext(file.key.lower())[1], posixpath.dirname(file.key)
        if ending not in SUFFIXES or file.key.endswith(tuple(f".{name}.tiff" for name in TOLD)):
            continue
        name, parts = without_suffix(file.key), [file]
        if ending in WITH_NEIGHBOURS:
            parts += [other for other in beside[folder] if other != file]
            name = folder if ending == ".dcm" else name
        elif ending == ".mrxs":
            parts += beside.get(name, [])
        if ending == ".dcm" and name in slides:
            continue  # another file of the same slide
        slides[file.key if name in slides else name] = SlideFiles(name, tuple(parts))
    return [SlideFiles(name, slide.files) for name, slide in sorted(slides.items())]


def predict_slide(task: PredictTask) -> Predicted | Skipped:
    """Look at one slide and write its maps and then its finding, unless they are there.

    A slide that cannot be looked at comes back as Skipped, and is tried again by the next run.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _loaded(task.model, str(device))
    name, slide = f"{FOLDER}/{task.found.slide}", task.found.slide
    key = _key(task.found, model, task.settings.assumed_um_per_px)
    if task.output.exists(f"{name}.json"):
        earlier = task.output.read_json(f"{name}.json")
        if earlier["key"] == key:
            return Predicted(**{**earlier, "earlier": True})
    try:
        with (
            staged(task.data, task.found.keys) as paths,
            open_slide(paths[0], task.settings.assumed_um_per_px) as opened,
        ):
            sight, um_per_px = look_at(opened, model.net, model.settings, device), opened.um_per_px
    except (UnreadableSlideError, OSError, MemoryError) as error:
        return Skipped(slide, str(error) or type(error).__name__)
    for kind, content in maps(sight, model.settings).items():
        task.output.write(f"{name}.{kind}.tiff", content)
    found = Predicted(slide, sight.grade, round(sight.expected_grade, 4), len(sight.corners), um_per_px, key)
    task.output.write_json(f"{name}.json", asdict(found))
    return found


@functools.lru_cache(maxsize=1)
def _loaded(url: str, device: str) -> Model:
    """The model of an output, kept by the process for its next slides."""
    store = open_store(url)
    saved = read_model(store)
    settings = Settings.model_validate(saved["settings"])
    net = build_model(settings.encoder)
    net.load_state_dict(saved["model"])
    net.eval()
    return Model(net.to(device), settings, hashlib.sha256(store.read(MODEL_FILE)).hexdigest())


def _key(found: SlideFiles, model: Model, assumed_um_per_px: float) -> str:
    files = [(file.key, file.size_bytes, file.changed) for file in found.files]
    what = [FORMAT, files, model.digest, assumed_um_per_px]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def _fetched_ahead(tasks: Sequence[PredictTask]) -> AbstractContextManager[None]:
    """The next slides come into the cache while one is looked at."""
    return prefetched(tasks[0].data, [key for task in tasks for key in task.found.keys]) if tasks else nullcontext()


def _write_table(output: Store, done: Sequence[Predicted]) -> None:
    """grades.csv: one line a slide."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["slide", "isup_grade", "expected_grade", "tiles", "um_per_px"])
    for one in sorted(done, key=lambda one: one.slide):
        table.writerow([one.slide, one.isup_grade, one.expected_grade, one.tiles, f"{one.um_per_px:g}"])
    output.write(TABLE, text.getvalue().encode())
