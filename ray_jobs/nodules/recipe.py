"""The nodules job as a recipe of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.settings import Settings, settings_from
from dhctl.ray_jobs.pipeline.recipe import Recipe
from dhctl.ray_jobs.storage import Store

if TYPE_CHECKING:
    from dhctl.ray_jobs.nodules.cohort import Cohort
    from dhctl.ray_jobs.pipeline.job import Job
    from dhctl.ray_jobs.training.task import Task

# Functions import what they need: --help and admission must not wait for torch, MONAI and highdicom.


def _phantoms(job: Job[Settings]) -> Store:
    from dhctl.ray_jobs.nodules.phantom_files import PhantomTask, plan_phantoms, write_phantom, write_table
    from dhctl.ray_jobs.nodules.table import TABLE

    def fill(store: Store) -> None:
        phantoms = plan_phantoms(job.settings.phantom_patients, job.settings.seed)
        tasks = [PhantomTask(phantom, store) for phantom in phantoms]
        written = {scan for _, scan in job.each("phantoms", "scan", write_phantom, tasks)}
        missing = {phantom.scan for phantom in phantoms} - written
        if missing:
            raise RefusedInputError(f"{len(missing)} phantoms were not written to {store.url}; check its free space")
        write_table(store, phantoms)

    return job.generate(("seed", "phantom_patients"), TABLE, fill)


def _prepare(job: Job[Settings], data: Store) -> Cohort:
    from dhctl.ray_jobs.nodules.cohort import prepare

    return prepare(data, job.shards, job.settings, job.spread)


def _read_cohort(job: Job[Settings]) -> Cohort:
    from dhctl.ray_jobs.nodules.cohort import read_cohort

    return read_cohort(job.shards, job.settings)


def _task(job: Job[Settings], cohort: Cohort) -> Task:
    from dhctl.ray_jobs.nodules.task import NoduleTask

    return NoduleTask(cohort, job.shards, job.settings)


def _evaluate(job: Job[Settings], cohort: Cohort, state: Mapping[str, Any]) -> dict[str, Any]:
    from dhctl.ray_jobs.nodules.evaluation import evaluated

    return evaluated(cohort, job.shards, job.output, job.settings, state, job.device)


def _predict(job: Job[Settings], data: Store) -> dict[str, Any]:
    from dhctl.ray_jobs.nodules.prediction import predict

    return predict(job, data)


RECIPE = Recipe(
    name="nodules",
    summary="Find and outline lung nodules in chest CT",
    sample="scan",
    what_phantoms_are="generated phantoms, not patients",
    settings=settings_from,
    phantoms=_phantoms,
    prepare=_prepare,
    read_cohort=_read_cohort,
    task=_task,
    evaluate=_evaluate,
    predict=_predict,
    packages=("pydicom", "highdicom", "nibabel", "scipy"),
)
