"""The command of a job, `python -m dhctl.ray_jobs.<job>`: the whole job, or one stage of it.

What dhctl sets as DHCTL_ variables can be given as options instead; options come first.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

import click

from dhctl.ray_jobs.environment import JobEnvironment, JobStoppedError, RefusedInputError
from dhctl.ray_jobs.pipeline.recipe import Recipe

# The stages are imported when one runs: --help and errors in the environment must not wait for torch.

AnyRecipe = Recipe[Any, Any]
Stage = Callable[[AnyRecipe, Any], None]


def run(recipe: AnyRecipe) -> int:
    """Run the command line. The one place where refusals and failures become a sentence on stderr and exit code 1."""
    try:
        cast(Any, command(recipe))(standalone_mode=False)
    except (RefusedInputError, JobStoppedError) as error:
        click.echo(f"{recipe.name}: {error}", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return 0


def command(recipe: AnyRecipe) -> click.Group:
    """The command with its stages."""
    summary = f"{recipe.summary}; without a command: prepare, train, evaluate."

    @click.group(invoke_without_command=True, help=summary)
    @click.pass_context
    def main(context: click.Context) -> None:
        """The whole job as dhctl starts it, described by the environment."""
        if context.invoked_subcommand is None:
            _begin(recipe, _all, JobEnvironment.from_env(os.environ), with_ray=True)

    stages: dict[str, Stage] = {
        "all": _all,
        "phantoms": _phantoms,
        "prepare": _prepare,
        "train": _train,
        "evaluate": _evaluate,
    }
    if recipe.predict is not None:
        stages["predict"] = _predict
    for name, stage in stages.items():
        main.command(name)(_with_options(recipe, stage))
    return main


def _with_options(recipe: AnyRecipe, stage: Stage) -> Callable[..., None]:
    """Give a stage the options that describe a job, and hand it the open job."""

    @click.option("--data", help="DHCTL_DATA: a folder, an s3:// URL, or phantoms.")
    @click.option("--output", help="DHCTL_OUTPUT: a folder or an s3:// URL for shards, checkpoints and results.")
    @click.option("--workers", help="DHCTL_WORKERS: how many train workers.")
    @click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A setting, such as epochs=3.")
    @click.option("--without-ray", is_flag=True, help="In this process alone, without a cluster.")
    @functools.wraps(stage)
    def called(
        data: str | None, output: str | None, workers: str | None, params: tuple[str, ...], without_ray: bool
    ) -> None:
        given = {"DHCTL_DATA": data, "DHCTL_OUTPUT": output, "DHCTL_WORKERS": workers}
        env = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
        _begin(recipe, stage, JobEnvironment.from_env(_with_params(env, params)), with_ray=not without_ray)

    return called


def _begin(recipe: AnyRecipe, stage: Stage, env: JobEnvironment, with_ray: bool) -> None:
    from dhctl.ray_jobs.pipeline.job import open_job

    stage(recipe, open_job(recipe, env, with_ray))


def _all(recipe: AnyRecipe, job: Any) -> None:
    """prepare, train and evaluate."""
    from dhctl.ray_jobs.pipeline.job import run_all

    found = run_all(recipe, job).get("metric")
    if found is None:
        return
    low, high = found["ci95"]
    click.echo(f"{found['name'].replace('_', ' ')} {found['value']:.3f} (95 % interval {low:.3f} to {high:.3f})")
    for baseline in found["baselines"]:
        click.echo(f"  baseline, {baseline['name']}: {baseline['value']:.3f}")


def _phantoms(recipe: AnyRecipe, job: Any) -> None:
    """Generate sample data into the output."""
    click.echo(recipe.phantoms(job).url)


def _prepare(recipe: AnyRecipe, job: Any) -> None:
    """Turn the data into shards."""
    from dhctl.ray_jobs.pipeline.job import run_prepare

    run_prepare(recipe, job)


def _train(recipe: AnyRecipe, job: Any) -> None:
    """Train on the shards that prepare left in the output."""
    from dhctl.ray_jobs.pipeline.job import run_train

    run_train(recipe, job)


def _evaluate(recipe: AnyRecipe, job: Any) -> None:
    """Score the model that train left in the output."""
    from dhctl.ray_jobs.pipeline.job import run_evaluate

    run_evaluate(recipe, job)


def _predict(recipe: AnyRecipe, job: Any) -> None:
    """What the trained model makes of the data."""
    from dhctl.ray_jobs.pipeline.job import run_predict

    run_predict(recipe, job)


def _with_params(env: Mapping[str, str], params: tuple[str, ...]) -> dict[str, str]:
    chosen = dict(JobEnvironment.from_env(env).params)
    for param in params:
        name, equals, value = param.partition("=")
        if not equals:
            raise RefusedInputError(f"--param {param} has no value; write --param {name}=VALUE")
        try:
            chosen[name] = json.loads(value)
        except ValueError:
            chosen[name] = value
    return {**env, "DHCTL_JOB_PARAMS": json.dumps(chosen)}
