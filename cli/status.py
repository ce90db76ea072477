"""`dhctl status`: what the ledger, the machine and Ray say of one run."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl status prostate-demo --json")
@options.run_argument
@options.as_json
def command(run: str, as_json: bool) -> None:
    """Show one run: its state, lease, nodes, job, while it is up what went wrong, and the receipt when it is over."""
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table, receipt_table
    from dhctl.infra.status import look

    record = factory.record(run)
    status = look(record, factory.target_of(record))
    console = Console(as_json)
    console.document(status.to_dict(), plain_table(("", ""), status.rows()))
    if status.receipt and not as_json:
        console.document(None, receipt_table(status.receipt))
