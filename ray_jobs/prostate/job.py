"""The stages of the job put together; each leaves in the output what the next one reads."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import io
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import PHANTOMS, JobEnvironment, RefusedInputError
from dhctl.ray_jobs.prostate.epochs import EpochLog
from dhctl.ray_jobs.prostate.evaluation import (
    MODEL_FILE,
    GradeTask,
    grade_on_ray,
    grade_slides,
    scored,
    write_predictions,
)
from dhctl.ray_jobs.prostate.phantoms import WHAT_THEY_ARE, PhantomTask, plan_phantoms, write_phantom, write_table
from dhctl.ray_jobs.prostate.preparation import Cohort, prepare, read_cohort
from dhctl.ray_jobs.prostate.settings import Settings, settings_from
from dhctl.ray_jobs.prostate.spread import InThisProcess, RayTasks, Spread
from dhctl.ray_jobs.storage import Store, open_store

RESULT_FILE = "result.json"
RAY_TRAINING = "dhctl.ray_jobs.prostate.ray_training"
REPORTED_PACKAGES = ("torch", "ray", "monai", "openslide-python", "openslide-bin", "scikit-learn", "numpy")


@dataclass
class Job:
    """One run of the job: what was asked, where things lie, how work is spread, how long stages took."""

    env: JobEnvironment
    settings: Settings
    output: Store
    with_ray: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def shards(self) -> Store:
        """Where shards and their index lie."""
        return self.output.beneath("shards")

    @property
    def spread(self) -> Spread:
        """How work on slides is spread."""
        return RayTasks(self.env.workers * self.env.worker_cpus) if self.with_ray else InThisProcess()

    def training_name(self, cohort: Cohort) -> str:
        """Name of the training: equal settings and data give an equal name, and so resume."""
        return f"train-{self.settings.digest()}-{cohort.digest[:8]}"


def open_job(env: JobEnvironment, with_ray: bool) -> Job:
    """Check the settings and connect to Ray. Raises RefusedInputError."""
    settings = settings_from(env.params)
    if with_ray:
        _connect()
    return Job(env, settings, open_store(env.output), with_ray)


def run_all(job: Job) -> dict[str, Any]:
    """prepare, train, evaluate; a job that is done already gives its result again."""
    if job.with_ray:
        # Importing torch takes seconds, in which the driver would otherwise wait for the workers' tiles.
        threading.Thread(target=importlib.import_module, args=(RAY_TRAINING,), daemon=True).start()
    cohort = run_prepare(job)
    if job.output.exists(RESULT_FILE):
        done: dict[str, Any] = job.output.read_json(RESULT_FILE)
        if done.get("training") == job.training_name(cohort):
            report.result(done)
            return done
    run_train(job)
    return run_evaluate(job)


def run_phantoms(job: Job) -> Store:
    """Generate the phantoms of these settings, unless they are there; returns their folder."""
    store = job.output.beneath(f"phantoms-{job.settings.digest('seed', 'phantom_patients')}")
    if store.exists("train.csv"):
        return store
    with _timed(job, "phantoms"):
        phantoms = plan_phantoms(job.settings.phantom_patients, job.settings.seed)
        tasks = [PhantomTask(phantom, store) for phantom in phantoms]
        shown_at = max(1, len(tasks) // 10)
        report.progress("phantoms", 0, len(tasks), unit="slide")
        for done, _ in enumerate(job.spread.each(write_phantom, tasks), start=1):
            if done % shown_at == 0 or done == len(tasks):
                report.progress("phantoms", done, len(tasks), unit="slide")
        missing = {f"{p.case.slide}.tiff" for p in phantoms} - {file.key for file in store.files()}
        if missing:
            raise RefusedInputError(f"{len(missing)} phantoms were not written to {store.url}; check its free space")
        write_table(store, phantoms)
    return store


def run_prepare(job: Job) -> Cohort:
    """Slides (generated first, where the data is phantoms) to shards."""
    data = run_phantoms(job) if job.env.data == PHANTOMS else open_store(job.env.data)
    with _timed(job, "prepare"):
        return prepare(data, job.shards, job.settings, job.spread)


def run_train(job: Job) -> None:
    """Shards to model.pt; goes on from the last checkpoint, and does nothing where training is complete.

    Raises RefusedInputError for more workers than slides in a batch, JobStoppedError when Ray gives up.
    """
    import torch

    from dhctl.ray_jobs.prostate.bags import batch_size

    cohort = read_cohort(job.shards, job.settings)
    name = job.training_name(cohort)
    if _trained(job, name):
        return
    batch_size(len(cohort.part("train")), job.env.workers if job.with_ray else 1, job.settings)
    log = EpochLog(job.output, name, job.settings.epochs)
    report.progress("train", 0, job.settings.epochs)
    with _timed(job, "train"):
        state = _training_function(job)(name, job.settings, job.env, job.output, job.shards, log.add)
    log.settle(state["history"])
    content = io.BytesIO()
    kept = {key: state[key] for key in ("model", "epochs_done", "history")}
    torch.save({**kept, "training": name, "settings": job.settings.model_dump()}, content)
    job.output.write(MODEL_FILE, content.getvalue())


def run_evaluate(job: Job) -> dict[str, Any]:
    """model.pt and shards to result.json, which is also reported to dhctl."""
    cohort = read_cohort(job.shards, job.settings)
    name = job.training_name(cohort)
    if not _trained(job, name):
        raise RefusedInputError(
            f"{job.output.url} has no {MODEL_FILE} of these settings and slides; run the stage train first"
        )
    test = cohort.part("test")
    report.progress("evaluate", 0, len(test), unit="slide")
    with _timed(job, "evaluate"):
        env = job.env
        task = GradeTask(tuple(test), job.output, job.shards, job.settings, env.worker_cpus, env.worker_gpus > 0)
        predicted = grade_on_ray(task) if job.with_ray else grade_slides(task)
        scores = scored(cohort, predicted, job.settings.seed)
    report.progress("evaluate", len(test), len(test), {"quadratic_weighted_kappa": scores["metric"]["value"]}, "slide")
    write_predictions(job.output, test, predicted)
    found = {"job": "prostate", "training": name, **scores, **_circumstances(job, cohort)}
    job.output.write_json(RESULT_FILE, found)
    report.result(found)
    return found


def _circumstances(job: Job, cohort: Cohort) -> dict[str, Any]:
    """Everything in a result but the scores."""
    model = job.output.read(MODEL_FILE)
    history = _read_model(model)["history"]
    rates = sorted(epoch["samples_per_s"] for epoch in history)
    return {
        "run": job.env.run_id,
        "data": WHAT_THEY_ARE if job.env.data == PHANTOMS else job.env.data,
        "skipped": [{"slide": row.slide, "reason": row.reason} for row in cohort.skipped],
        "seed": job.settings.seed,
        "epochs": len(history),
        "validation_qwk": [round(epoch["validation_qwk"], 4) for epoch in history],
        "samples_per_s": {"median": round(rates[len(rates) // 2], 2), "unit": "slides"},
        "workers": {"count": job.env.workers, "cpus": job.env.worker_cpus, "gpus": job.env.worker_gpus},
        "settings": job.settings.model_dump(),
        "digests": {"data": cohort.digest, "model": hashlib.sha256(model).hexdigest()},
        "versions": _versions(),
        "seconds": {stage: round(seconds, 2) for stage, seconds in job.seconds.items()},
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _trained(job: Job, name: str) -> bool:
    return job.output.exists(MODEL_FILE) and _read_model(job.output.read(MODEL_FILE)).get("training") == name


def _read_model(content: bytes) -> dict[str, Any]:
    import torch

    saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return saved


def _training_function(job: Job) -> Callable[..., dict[str, Any]]:
    # Each import brings its own: without Ray, Ray is not loaded.
    if job.with_ray:
        from dhctl.ray_jobs.prostate.ray_training import train_on_ray

        return train_on_ray
    from dhctl.ray_jobs.prostate.plain_training import train_without_ray

    return train_without_ray


def _connect() -> None:
    if not os.environ.get("RAY_ADDRESS"):
        raise RefusedInputError(
            "RAY_ADDRESS is not set; submit this job to a Ray cluster, or give --without-ray to run it in one process"
        )
    import ray

    ray.init(log_to_driver=True)


@contextmanager
def _timed(job: Job, stage: str) -> Iterator[None]:
    """Keep the seconds of a `with` block as those of a stage."""
    began = time.monotonic()
    try:
        yield
    finally:
        job.seconds[stage] = time.monotonic() - began
