"""The skin job as a recipe of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.recipe import Recipe
from dhctl.ray_jobs.skin.settings import WHAT_PHANTOMS_ARE, Settings, settings_from
from dhctl.ray_jobs.storage import Store

if TYPE_CHECKING:
    from dhctl.ray_jobs.pipeline.job import Job
    from dhctl.ray_jobs.skin.preparation import Cohort
    from dhctl.ray_jobs.training.task import Task

# Functions import what they need: --help and admission must not wait for torch and scipy.


def _phantoms(job: Job[Settings]) -> Store:
    from dhctl.ray_jobs.skin import phantoms as made

    def fill(store: Store) -> None:
        phantoms = made.plan_phantoms(job.settings)
        tasks = [made.PhantomTask(phantom, store) for phantom in phantoms]
        for _ in job.each("phantoms", "picture", made.write_phantom, tasks):
            pass
        missing = {made.picture_key(phantom) for phantom in phantoms} - {file.key for file in store.files(deep=True)}
        if missing:
            raise RefusedInputError(f"{len(missing)} phantoms were not written to {store.url}; check its free space")
        made.write_descriptions(store, phantoms, job.settings)

    return job.generate(made.NAMED_BY, made.DATASET, fill)


def _prepare(job: Job[Settings], data: Store) -> Cohort:
    from dhctl.ray_jobs.skin.preparation import prepare

    return prepare(data, job.shards, job.settings, job.spread)


def _read_cohort(job: Job[Settings]) -> Cohort:
    from dhctl.ray_jobs.skin.preparation import read_cohort

    return read_cohort(job.shards, job.settings)


def _task(job: Job[Settings], _cohort: Cohort) -> Task:
    from dhctl.ray_jobs.skin.task import Classification

    return Classification(job.settings, job.shards)


def _evaluate(job: Job[Settings], cohort: Cohort, state: Mapping[str, Any]) -> dict[str, Any]:
    from dhctl.ray_jobs.skin.evaluation import probabilities_of, scored, write_predictions
    from dhctl.ray_jobs.skin.task import Classification

    task = Classification(job.settings, job.shards)
    probabilities = probabilities_of(cohort.part("test"), task, state, job.device)
    write_predictions(job.output, cohort, probabilities)
    return scored(cohort, probabilities, job.settings.seed)


RECIPE = Recipe(
    name="skin",
    summary="Classify skin lesions",
    sample="picture",
    what_phantoms_are=WHAT_PHANTOMS_ARE,
    settings=settings_from,
    phantoms=_phantoms,
    prepare=_prepare,
    read_cohort=_read_cohort,
    task=_task,
    evaluate=_evaluate,
    packages=("pillow", "pyyaml"),
)
