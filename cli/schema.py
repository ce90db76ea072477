"""`dhctl schema`: the JSON schema of a spec file."""

from __future__ import annotations

import click


@click.command(epilog="Example:  dhctl schema > dhctl-schema.json")
def command() -> None:
    """Print the JSON schema of a spec file, for editors and checks."""
    import json

    from dhctl.infra.spec import schema

    click.echo(json.dumps(schema(), indent=2))
