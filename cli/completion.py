"""`dhctl completion`: completion for the user's shell."""

from __future__ import annotations

import click


@click.command(epilog='Example:  eval "$(dhctl completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes dhctl's verbs, options and runs in SHELL."""
    from click.shell_completion import get_completion_class

    from dhctl.cli.main import group

    found = get_completion_class(shell)
    assert found is not None  # click knows each of the choices
    click.echo(found(group, {}, "dhctl", "_DHCTL_COMPLETE").source())
