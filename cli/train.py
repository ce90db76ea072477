"""`dhctl train`: the job of a run that is up."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl train prostate-demo")
@options.run_argument
@options.as_json
def command(run: str, as_json: bool) -> None:
    """Run the job on a run that is up; the cluster stays.

    A job that ended early goes on from its last checkpoint when it is trained again. Ctrl-C stops the job.
    """
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.outcome import show_outcome
    from dhctl.infra.interrupts import Interrupts
    from dhctl.infra.job import train

    record = factory.record(run)
    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        interrupts.subject = record.run_id
        outcome = train(record, factory.target_of(record), console.report, interrupts)
        show_outcome(console, record, outcome)
    outcome.require_success(record)
