"""`python -m dhctl.ray_jobs.prostate`: the whole job, or one stage of it.

What dhctl sets as DHCTL_ variables can be given as options instead; options come first.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import click

from dhctl.ray_jobs.environment import JobEnvironment, JobStoppedError, RefusedInputError

# The stages are imported when one runs: --help and errors in the environment must not wait for torch.


def stage(function: Callable[[Any], None]) -> Callable[..., None]:
    """Give a command the options that describe a job, and hand it the open job."""

    @click.option("--data", help="DHCTL_DATA: a folder, an s3:// URL, or phantoms.")
    @click.option("--output", help="DHCTL_OUTPUT: a folder or an s3:// URL for shards, checkpoints and results.")
    @click.option("--workers", help="DHCTL_WORKERS: how many train workers.")
    @click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A setting, such as epochs=3.")
    @click.option("--without-ray", is_flag=True, help="In this process alone, without a cluster.")
    @functools.wraps(function)
    def command(
        data: str | None, output: str | None, workers: str | None, params: tuple[str, ...], without_ray: bool
    ) -> None:
        given = {"DHCTL_DATA": data, "DHCTL_OUTPUT": output, "DHCTL_WORKERS": workers}
        env = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
        _begin(function, JobEnvironment.from_env(_with_params(env, params)), with_ray=not without_ray)

    return command


@click.group(invoke_without_command=True, help="Grade prostate biopsies; without a command: prepare, train, evaluate.")
@click.pass_context
def main(context: click.Context) -> None:
    """The whole job as dhctl starts it, described by the environment."""
    if context.invoked_subcommand is None:
        _begin(_run_all, JobEnvironment.from_env(os.environ), with_ray=True)


@main.command("all")
@stage
def all_stages(job: Any) -> None:
    """prepare, train and evaluate."""
    _run_all(job)


@main.command()
@stage
def phantoms(job: Any) -> None:
    """Generate sample slides into the output."""
    from dhctl.ray_jobs.prostate.job import run_phantoms

    click.echo(run_phantoms(job).url)


@main.command()
@stage
def prepare(job: Any) -> None:
    """Cut slides into shards of tiles."""
    from dhctl.ray_jobs.prostate.job import run_prepare

    run_prepare(job)


@main.command()
@stage
def train(job: Any) -> None:
    """Train on the shards that prepare left in the output."""
    from dhctl.ray_jobs.prostate.job import run_train

    run_train(job)


@main.command()
@stage
def evaluate(job: Any) -> None:
    """Score the model that train left in the output."""
    from dhctl.ray_jobs.prostate.job import run_evaluate

    run_evaluate(job)


def _run_all(job: Any) -> None:
    from dhctl.ray_jobs.prostate.job import run_all

    found = run_all(job)["metric"]
    low, high = found["ci95"]
    click.echo(f"quadratic weighted kappa {found['value']:.3f} (95 % interval {low:.3f} to {high:.3f})")
    for baseline in found["baselines"]:
        click.echo(f"  baseline, {baseline['name']}: {baseline['value']:.3f}")


def _begin(function: Callable[[Any], None], env: JobEnvironment, with_ray: bool) -> None:
    from dhctl.ray_jobs.prostate.job import open_job

    function(open_job(env, with_ray))


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


def run() -> int:
    """The one place where refusals and failures become a sentence on stderr and exit code 1."""
    try:
        cast(Any, main)(standalone_mode=False)
    except (RefusedInputError, JobStoppedError) as error:
        click.echo(f"prostate: {error}", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run())
