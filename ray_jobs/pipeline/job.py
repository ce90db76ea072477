"""The stages of a job put together; each leaves in the output what the next one reads."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import PHANTOMS, JobEnvironment, RefusedInputError
from dhctl.ray_jobs.pipeline.recipe import CohortT, Recipe, SettingsT
from dhctl.ray_jobs.pipeline.results import RESULT_FILE, circumstances
from dhctl.ray_jobs.pipeline.spread import InThisProcess, Lost, RayTasks, Spread
from dhctl.ray_jobs.storage import Store, open_store
from dhctl.ray_jobs.training.fit import MODEL_FILE, fit, is_trained, read_model

if TYPE_CHECKING:
    import torch

RAY_TRAINING = "dhctl.ray_jobs.training.ray_training"

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass
class Job(Generic[SettingsT]):
    """One run of a job: what was asked, where things lie, how work is spread, how long stages took."""

    env: JobEnvironment
    settings: SettingsT
    output: Store
    with_ray: bool
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""

    @property
    def shards(self) -> Store:
        """Where shards and their index lie."""
        return self.output.beneath("shards")

    @property
    def trained(self) -> Store:
        """Where the model lies that predicts: the output of the run that the settings name, else of this one."""
        return open_store(self.settings.model_from) if self.settings.model_from else self.output

    @property
    def spread(self) -> Spread:
        """How work on many items is spread."""
        return RayTasks(self.env.workers * self.env.worker_cpus) if self.with_ray else InThisProcess()

    @property
    def device(self) -> torch.device:
        """Where a model goes in this process: the GPU, where workers have one and this one sees it."""
        import torch

        return torch.device("cuda" if self.env.worker_gpus and torch.cuda.is_available() else "cpu")

    @property
    def model_spread(self) -> Spread:
        """The same for work with a model: a task has a GPU and its share of the cores, where workers have GPUs."""
        env = self.env
        if not self.with_ray or not env.worker_gpus:
            return self.spread
        cpus = max(1, env.worker_cpus // env.worker_gpus)
        return RayTasks(env.workers * env.worker_cpus, cpus_each=cpus, gpus_each=1)

    def each(
        self, stage: str, unit: str, work: Callable[[Item], Outcome], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Outcome | Lost]]:
        """`spread.each`, with about ten progress lines."""
        return told(stage, unit, self.spread.each(work, items), len(items))

    def generate(self, named_by: Sequence[str], marker: str, fill: Callable[[Store], None]) -> Store:
        """A store of generated data in the output, named by these settings; `fill` writes the file `marker` last."""
        store = self.output.beneath(f"phantoms-{self.settings.digest(*named_by)}")
        if not store.exists(marker):
            with timed(self, "phantoms"):
                fill(store)
        return store


def told(stage: str, unit: str, outcomes: Iterator[Outcome], count: int) -> Iterator[Outcome]:
    """These `count` outcomes as they come, with about ten progress lines."""
    shown_at = max(1, count // 10)
    report.progress(stage, 0, count, unit=unit)
    for done, outcome in enumerate(outcomes, start=1):
        yield outcome
        if done % shown_at == 0 or done == count:
            report.progress(stage, done, count, unit=unit)


def open_job(recipe: Recipe[SettingsT, CohortT], env: JobEnvironment, with_ray: bool) -> Job[SettingsT]:
    """Check the settings and connect to Ray. Raises RefusedInputError."""
    settings = recipe.settings(env.params)
    if settings.stage == "predict" and recipe.predict is None:
        raise RefusedInputError(f"the job {recipe.name} has no stage predict; leave job.params.stage out")
    if with_ray:
        connect()
    return Job(env, settings, open_store(env.output), with_ray)


def connect() -> None:
    """Connect to the cluster that this process was submitted to. Raises RefusedInputError."""
    if not os.environ.get("RAY_ADDRESS"):
        raise RefusedInputError(
            "RAY_ADDRESS is not set; submit this job to a Ray cluster, or give --without-ray to run it in one process"
        )
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=True)


def run_all(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> dict[str, Any]:
    """What settings.stage says: prepare, train, evaluate; or predict. A job that is done gives its result again."""
    if job.settings.stage == "predict":
        return run_predict(recipe, job)
    if job.with_ray:
        # Importing torch takes seconds, in which the driver would otherwise wait for the workers' shards.
        threading.Thread(target=importlib.import_module, args=(RAY_TRAINING,), daemon=True).start()
    cohort = run_prepare(recipe, job)
    if job.output.exists(RESULT_FILE):
        done: dict[str, Any] = job.output.read_json(RESULT_FILE)
        if done.get("training") == training_name(job, cohort):
            report.result(done)
            return done
    run_train(recipe, job)
    return run_evaluate(recipe, job)


def run_prepare(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> CohortT:
    """Data (generated first, where it is phantoms) to shards."""
    data = _data(recipe, job)
    with timed(job, "prepare"):
        return recipe.prepare(job, data)


def run_train(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> None:
    """Shards to model.pt; goes on from the last checkpoint, and does nothing where training is complete.

    Raises RefusedInputError for more workers than samples in a batch, JobStoppedError when training cannot go on.
    """
    from dhctl.ray_jobs.training.runner import TrainingOrder

    cohort = recipe.read_cohort(job)
    name = training_name(job, cohort)
    if is_trained(job.output, name):
        return
    with timed(job, "train"):
        fit(TrainingOrder(name, recipe.task(job, cohort), job.settings, job.env, job.output), job.with_ray)


def run_evaluate(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> dict[str, Any]:
    """model.pt and shards to result.json, which is also reported to dhctl."""
    cohort = recipe.read_cohort(job)
    name = training_name(job, cohort)
    if not is_trained(job.output, name):
        raise RefusedInputError(
            f"{job.output.url} has no {MODEL_FILE} of these settings and {recipe.sample}s; run the stage train first"
        )
    count = len(cohort.part("test"))
    report.progress("evaluate", 0, count, unit=recipe.sample)
    with timed(job, "evaluate"):
        scores = _on_a_worker(_evaluate, recipe, job)
    metric = scores["metric"]
    report.progress("evaluate", count, count, {metric["name"]: metric["value"]}, recipe.sample)
    found = {"job": recipe.name, "training": name, **scores, **circumstances(recipe, job, cohort)}
    job.output.write_json(RESULT_FILE, found)
    report.result(found)
    return found


def run_predict(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> dict[str, Any]:
    """What a trained model makes of the data; the summary is reported to dhctl. Raises RefusedInputError."""
    assert recipe.predict is not None
    try:
        saved = read_model(job.trained)
    except FileNotFoundError as error:
        raise RefusedInputError(
            f"{job.trained.url} has no {MODEL_FILE}; set job.params.model_from to the output of a run that trained one"
        ) from error
    with timed(job, "predict"):
        found = {"job": recipe.name, "model": saved["training"], **recipe.predict(job, _data(recipe, job))}
    report.result(found)
    return found


def _data(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> Store:
    """The store of the spec's data; phantoms are generated first."""
    return recipe.phantoms(job) if job.env.data == PHANTOMS else open_store(job.env.data)


def training_name(job: Job[SettingsT], cohort: CohortT) -> str:
    """Name of the training: equal settings and data give an equal name, and so resume."""
    return f"train-{job.settings.digest()}-{cohort.digest[:8]}"


def _on_a_worker(work: Callable[..., dict[str, Any]], recipe: Any, job: Job[Any]) -> dict[str, Any]:
    """Call `work` as a Ray task of a worker's size: the head node has neither its cores nor its GPU."""
    if not job.with_ray:
        return work(recipe, job)
    import ray

    gpus = 1 if job.env.worker_gpus else 0
    remote: Any = ray.remote(num_cpus=job.env.worker_cpus, num_gpus=gpus, max_retries=3)(work)
    done: dict[str, Any] = ray.get(remote.remote(recipe, job))
    return done


def _evaluate(recipe: Recipe[SettingsT, CohortT], job: Job[SettingsT]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(job.env.worker_cpus)
    return recipe.evaluate(job, recipe.read_cohort(job), read_model(job.output)["model"])


@contextmanager
def timed(job: Job[Any], stage: str) -> Iterator[None]:
    """Keep the seconds of a `with` block as those of a stage."""
    began = time.monotonic()
    try:
        yield
    finally:
        job.seconds[stage] = time.monotonic() - began
