"""`dhctl list`: all runs this machine knows."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl list")
@click.option("--living", is_flag=True, help="Only runs that are not taken down clean.")
@options.as_json
def command(living: bool, as_json: bool) -> None:
    """List runs, newest first."""
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table
    from dhctl.infra.record import RunState, all_records
    from dhctl.infra.status import local_time, summary

    records = [r for r in all_records(factory.home()) if not living or r.state() is not RunState.CLEAN]
    rows = [summary(r) for r in records]
    nothing = "no living runs" if living else "no runs yet; `dhctl run SPEC` starts one"
    columns = ("run", "name", "target", "state", "started", "lease_ends")
    times = columns[-2:]
    cells = [[local_time(row[c]) if c in times else str(row[c]) for c in columns] for row in rows]
    table = plain_table([c.replace("_", " ") for c in columns], cells)
    Console(as_json).document(rows, table if rows else nothing)
