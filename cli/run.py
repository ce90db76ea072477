"""`dhctl run`: up, train, down."""

from __future__ import annotations

from pathlib import Path

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl run examples/prostate-local.yaml")
@options.spec_file
@options.target
@options.resume
@options.strict
@options.as_json
def command(spec_file: Path, target: str | None, resume: str | None, strict: bool, as_json: bool) -> None:
    """Bring a cluster up, train on it, take it down, prove it.

    Whatever happens in between (the job fails, Ctrl-C, the lease ends), the run is taken down and a receipt says what
    is left: nothing. Ctrl-C once finishes the step and takes down; twice stops now.
    """
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.outcome import show_outcome
    from dhctl.infra.interrupts import Interrupts
    from dhctl.infra.run import run

    given = factory.spec(spec_file, target, resume)
    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        tools = factory.tools(given, console, interrupts)
        spec = factory.admitted(given, tools, strict=strict)
        end = run(spec, tools, given)
        console.receipt(end.receipt)
        show_outcome(console, end.record, end.outcome)
    end.require_success()
