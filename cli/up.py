"""`dhctl up`: a cluster that stays until `dhctl down` or the end of its lease."""

from __future__ import annotations

from pathlib import Path

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl up examples/prostate-local.yaml")
@options.spec_file
@options.target
@options.resume
@options.strict
@options.as_json
def command(spec_file: Path, target: str | None, resume: str | None, strict: bool, as_json: bool) -> None:
    """Bring a cluster up and leave it until `dhctl down` or the end of its lease."""
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.infra.interrupts import Interrupts
    from dhctl.infra.up import bring_up

    given = factory.spec(spec_file, target, resume)
    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        tools = factory.tools(given, console, interrupts)
        spec = factory.admitted(given, tools, strict=strict)
        record = bring_up(spec, tools, given)
        until = record.expires_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        told = f"{record.run_id} is up until {until}. Next: dhctl train {record.run_id}, dhctl down {record.run_id}"
        console.say(told, run=record.run_id, expires_at=record.expires_at.isoformat())
