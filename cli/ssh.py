"""`dhctl ssh`: a shell on a run's head, or one command there."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example:  dhctl ssh prostate-cloud -- nvidia-smi",
)
@options.run_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(run: str, words: tuple[str, ...]) -> None:
    """Open a shell on a run's head node, or run COMMAND there and end with its exit status.

    Several words are passed on exactly; a single one is a line for the shell there, such as 'ls /tmp | wc -l'.
    """
    import os
    import sys

    from dhctl.cli import factory
    from dhctl.infra.ssh import login_line

    record = factory.record(run)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    told = words[1:] if words[:1] == ("--",) else words  # click leaves it there, as RUN ends the options already
    line = login_line(factory.target_of(record).endpoint(record), told, terminal=at_terminal)
    sys.stdout.flush()
    os.execv(line[0], line)
