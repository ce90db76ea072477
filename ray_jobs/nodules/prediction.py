"""The predict stage: nodules of scans nobody has outlined, written back as DICOM-SEG (NIfTI for other formats)."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from dhctl.ray_jobs import report
from dhctl.ray_jobs.data.staged import prefetched, staged
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.cohort import find_sources
from dhctl.ray_jobs.nodules.detection import Blob, diameter_mm, nodules_of
from dhctl.ray_jobs.nodules.dicom_series import read_series
from dhctl.ray_jobs.nodules.dicom_writing import Origin, UnwritableSegError, seg_object
from dhctl.ray_jobs.nodules.inference import probabilities
from dhctl.ray_jobs.nodules.labels import MOST_NODULES
from dhctl.ray_jobs.nodules.model import build_model
from dhctl.ray_jobs.nodules.phantom_files import nifti
from dhctl.ray_jobs.nodules.preparation import cut_to_lungs
from dhctl.ray_jobs.nodules.resampling import onto, resampled
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.sources import Skipped, Source, read_volume
from dhctl.ray_jobs.nodules.volume import UnusableScanError, Volume
from dhctl.ray_jobs.pipeline.cohorts import SHOWN_WARNINGS
from dhctl.ray_jobs.pipeline.job import Job
from dhctl.ray_jobs.pipeline.spread import Lost
from dhctl.ray_jobs.storage import Store, open_store
from dhctl.ray_jobs.training.fit import read_model

FOLDER = "predictions"

DESCRIPTION = "dhctl nodules: research only, unreviewed"

THRESHOLDS = ("least_diameter_mm", "mask_probability", "window_overlap")
"""Settings of predict itself; all others are those with which the model was trained."""


@dataclass(frozen=True)
class Model:
    """A trained network and what belongs to it."""

    net: nn.Module
    settings: Settings
    training: str
    """Name of its training."""


@dataclass(frozen=True)
class PredictTask:
    """One scan to look at."""

    source: Source
    data: Store
    output: Store
    model: str
    """Folder or s3:// URL of the output that holds model.pt."""
    settings: Settings

    @property
    def name(self) -> str:
        """Of the scan's files in the output, without ending."""
        return f"{FOLDER}/{self.source.scan}"


@dataclass(frozen=True)
class Predicted:
    """A scan that was looked at."""

    scan: str
    nodules: int
    earlier: bool
    """Whether an earlier run did it."""


def predict(job: Job[Settings], data: Store) -> dict[str, Any]:
    """Look at every scan of a store that was not looked at yet; a scan that fails does not stop the others.

    Gives a summary. Raises RefusedInputError where no scan could be looked at.
    """
    found = find_sources(data, job.spread, with_masks=False)
    tasks = [PredictTask(source, data, job.output, job.trained.place, job.settings) for source in found.sources]
    done: list[Predicted] = []
    failed = list(found.skipped)
    report.progress("predict", 0, len(tasks), unit="scan")
    for count, (task, outcome) in enumerate(job.model_spread.each(predict_scan, tasks, _fetched_ahead), start=1):
        report.progress("predict", count, len(tasks), unit="scan")
        match outcome:
            case Predicted():
                done.append(outcome)
            case Skipped():
                failed.append(outcome)
            case Lost(reason):
                failed.append(Skipped(task.source.scan, reason))
    for row in failed[:SHOWN_WARNINGS]:
        report.warning(f"scan {row.scan} is left out: {row.reason}")
    if not done:
        first = f": {failed[0].scan} {failed[0].reason}" if failed else ""
        raise RefusedInputError(f"no scan of {data.url} could be looked at{first}; check the scans")
    return {
        "scans": len(done),
        "by_an_earlier_run": sum(one.earlier for one in done),
        "nodules": sum(one.nodules for one in done),
        "failed": [asdict(row) for row in sorted(failed, key=lambda row: row.scan)],
        "masks": job.output.beneath(FOLDER).url,
    }


def predict_scan(task: PredictTask) -> Predicted | Skipped:
    """Find the nodules of one scan and write mask and list; the list is written last and marks the scan as done."""
    model = _model(task.model)
    settings = model.settings.model_copy(update={name: getattr(task.settings, name) for name in THRESHOLDS})
    mark = _mark(task, model, settings)
    if task.output.exists(f"{task.name}.json"):
        known = task.output.read_json(f"{task.name}.json")
        if known["made_from"] == mark:
            return Predicted(task.source.scan, len(known["nodules"]), earlier=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with staged(task.data, task.source.keys) as paths:
            nodules = _written(task, model, settings, paths, device)
    except (UnusableScanError, UnwritableSegError, OSError) as error:
        return Skipped(task.source.scan, str(error) or type(error).__name__)
    rows = [asdict(nodule) for nodule in nodules]
    task.output.write_json(f"{task.name}.json", {"made_from": mark, "scan": task.source.scan, "nodules": rows})
    return Predicted(task.source.scan, len(nodules), earlier=False)


def _fetched_ahead(tasks: Sequence[PredictTask]) -> AbstractContextManager[None]:
    """The next scans come into the cache while one is looked at."""
    return prefetched(tasks[0].data, [key for task in tasks for key in task.source.keys]) if tasks else nullcontext()


def outlined(
    model: nn.Module, volume: Volume, settings: Settings, device: torch.device
) -> tuple[NDArray[np.uint8], list[Blob]]:
    """Labels (z, y, x) on the scan's own grid, the most likely nodule first, and the nodules in this order.

    Raises UnusableScanError where the scan shows no lungs.
    """
    small = resampled(volume, settings.spacing_mm)
    cut, arrays = cut_to_lungs(small, np.zeros(small.grid.shape, dtype=np.uint8))
    found = onto(probabilities(model.to(device), cut, arrays.lungs, settings, device), cut.grid, volume.grid)
    pieces, count = ndimage.label(found > settings.mask_probability)
    numbers = np.arange(1, count + 1)
    diameters = diameter_mm(np.bincount(pieces.ravel(), minlength=count + 1)[1:] * volume.grid.voxel_mm3)
    scores = np.atleast_1d(ndimage.maximum(found, pieces, numbers)) if count else np.empty(0)
    kept = numbers[diameters >= settings.least_diameter_mm]
    kept = kept[np.argsort(-scores[kept - 1], kind="stable")][:MOST_NODULES]
    new_numbers = np.zeros(count + 1, dtype=np.uint8)
    new_numbers[kept] = np.arange(1, len(kept) + 1)
    labels: NDArray[np.uint8] = new_numbers[pieces]
    nodules = [
        replace(nodule, score=float(scores[number - 1]))
        for nodule, number in zip(nodules_of(labels, volume.grid), kept, strict=True)
    ]
    return labels, nodules


def _written(
    task: PredictTask, model: Model, settings: Settings, paths: Sequence[Path], device: torch.device
) -> list[Blob]:
    """The nodules of a scan, after its mask is in the output."""
    if task.source.form != "dicom":
        volume = read_volume(task.source, paths)
        labels, nodules = outlined(model.net, volume, settings, device)
        task.output.write(f"{task.name}.nii.gz", nifti(labels, volume.grid))
        return nodules
    series = read_series(paths)
    labels, nodules = outlined(model.net, series.volume, settings, device)
    origin = Origin("dhctl", "nodules", importlib.metadata.version("dhctl"), DESCRIPTION)
    task.output.write(f"{task.name}.dcm", seg_object(series.slices, labels, origin, salt=model.training))
    return nodules


@functools.lru_cache(maxsize=1)
def _model(url: str) -> Model:
    """The model of a run, read once a process."""
    saved = read_model(open_store(url))
    settings = Settings.model_validate(saved["settings"])
    net = build_model(settings)
    net.load_state_dict(saved["model"])
    return Model(net.eval(), settings, saved["training"])


def _mark(task: PredictTask, model: Model, settings: Settings) -> str:
    """Digest of what a prediction follows from: model, thresholds, files."""
    files = [asdict(file) for file in task.source.files]
    what = [model.training, settings.digest(*THRESHOLDS), files]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]
