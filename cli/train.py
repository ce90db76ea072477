"""`dhctl train`: the job of a run that is up."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl train prostate-demo")
@options.run_argument
@click.option("--attach", is_flag=True, help="Take up the job that runs already, whose client is gone.")
@options.as_json
def command(run: str, attach: bool, as_json: bool) -> None:
    """Run the job on a run that is up; the cluster stays.

    A job that ended early goes on from its last checkpoint when it is trained again. Ctrl-C stops the job, also one
    that was taken up. A head that is lost is replaced, and the job sent again (job.head_restarts).
    """
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.outcome import show_outcome
    from dhctl.infra import job
    from dhctl.infra.interrupts import Interrupts

    record = factory.record(run)
    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        interrupts.subject = record.run_id
        tools = factory.tools(record.spec, console, interrupts)
        outcome = job.attach(record, tools) if attach else job.train(record, tools)
        show_outcome(console, record, outcome)
    outcome.require_success(record)
