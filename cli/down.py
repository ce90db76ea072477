"""`dhctl down`: the end of a run, from its ledger alone."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl down prostate-demo")
@options.run_argument
@options.as_json
@click.option("--because", default="asked by the user", hidden=True)
def command(run: str, as_json: bool, because: str) -> None:
    """Take a run down and print the receipt.

    Can be repeated at any time, on any run: it goes on where an earlier one stopped, and on a run that is gone it looks
    again and succeeds. Exit code 5 when something is left.
    """
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.infra.down import take_down
    from dhctl.infra.interrupts import Interrupts

    record = factory.record(run)
    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        interrupts.subject = record.run_id
        engine_of = factory.engines(console, interrupts)
        receipt = take_down(record, factory.target_of(record), engine_of, console.report, because)
        console.receipt(receipt)
    receipt.require_clean()
