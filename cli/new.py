"""`dhctl new`: something to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from dhctl.cli import options


@click.group("new", epilog="Example:  dhctl new job my-job")
def command() -> None:
    """Make a small working job of your own, with its test."""


@command.command("job", epilog="Example:  dhctl new job my-job --folder jobs")
@click.argument("name", metavar="NAME")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Make it in there; by default here.",
)
@options.as_json
def job(name: str, folder: Path, as_json: bool) -> None:
    """Make a folder NAME with a small training job that works: task, spec, data, test."""
    from dhctl.cli.console import Console
    from dhctl.infra.job_template.write import new_job

    place = new_job(name, folder)
    told = f"`pytest` in it tests the job, `dhctl run {name}.yaml` runs it, job/task.py is yours to change"
    Console(as_json).say(f"{place} is made: {told}", job=name, folder=str(place))
