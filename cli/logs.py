"""`dhctl logs`: what a job printed, living or dead."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl logs -f prostate-demo")
@options.run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@options.as_json
def command(run: str, follow: bool, as_json: bool) -> None:
    """Print the log of a run's newest job; -f follows it, also when the client that started it is gone."""
    from dhctl.cli import factory
    from dhctl.infra.job_log import lines

    record = factory.record(run)
    for line in lines(record, factory.target_of(record), follow):
        click.echo(_json_line(line) if as_json else line)


def _json_line(line: str) -> str:
    import json

    return json.dumps({"event": "JobLogged", "line": line})
