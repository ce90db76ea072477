"""The prostate job as a recipe of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.recipe import Recipe
from dhctl.ray_jobs.prostate.settings import Settings, settings_from
from dhctl.ray_jobs.storage import Store

if TYPE_CHECKING:
    from dhctl.ray_jobs.pipeline.job import Job
    from dhctl.ray_jobs.prostate.preparation import Cohort
    from dhctl.ray_jobs.training.task import Task

# Functions import what they need: --help and admission must not wait for torch and scikit-image.


def _phantoms(job: Job[Settings]) -> Store:
    from dhctl.ray_jobs.prostate.phantoms import PhantomTask, plan_phantoms, write_phantom, write_table

    def fill(store: Store) -> None:
        phantoms = plan_phantoms(job.settings.phantom_patients, job.settings.seed)
        for _ in job.each("phantoms", "slide", write_phantom, [PhantomTask(phantom, store) for phantom in phantoms]):
            pass
        missing = {f"{p.case.slide}.tiff" for p in phantoms} - {file.key for file in store.files()}
        if missing:
            raise RefusedInputError(f"{len(missing)} phantoms were not written to {store.url}; check its free space")
        write_table(store, phantoms)

    return job.generate(("seed", "phantom_patients"), "train.csv", fill)


def _prepare(job: Job[Settings], data: Store) -> Cohort:
    from dhctl.ray_jobs.prostate.preparation import prepare

    return prepare(data, job.shards, job.settings, job.spread)


def _read_cohort(job: Job[Settings]) -> Cohort:
    from dhctl.ray_jobs.prostate.preparation import read_cohort

    return read_cohort(job.shards, job.settings)


def _task(job: Job[Settings], _cohort: Cohort) -> Task:
    from dhctl.ray_jobs.prostate.task import Grading

    return Grading(job.settings, job.shards)


def _evaluate(job: Job[Settings], cohort: Cohort, state: Mapping[str, Any]) -> dict[str, Any]:
    from dhctl.ray_jobs.prostate.evaluation import grades_of, scored, write_predictions
    from dhctl.ray_jobs.prostate.task import Grading

    test = cohort.part("test")
    predicted = grades_of(test, Grading(job.settings, job.shards), state, job.device)
    write_predictions(job.output, test, predicted)
    return scored(cohort, predicted, job.settings.seed)


def _predict(job: Job[Settings], data: Store) -> dict[str, Any]:
    from dhctl.ray_jobs.prostate.prediction import predict

    return predict(job, data)


RECIPE = Recipe(
    name="prostate",
    summary="Grade prostate biopsies",
    sample="slide",
    what_phantoms_are="generated phantoms, not patients",
    settings=settings_from,
    phantoms=_phantoms,
    prepare=_prepare,
    read_cohort=_read_cohort,
    task=_task,
    evaluate=_evaluate,
    predict=_predict,
    packages=("openslide-python", "openslide-bin"),
)
