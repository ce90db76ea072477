"""`dhctl doctor`: which engine, where, why; and what is missing for each target."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl doctor --install")
@click.option("--install", is_flag=True, help="Install the engine (the Pulumi CLI) where it is missing.")
@options.as_json
def command(install: bool, as_json: bool) -> None:
    """Say which engine is used and why, and what is missing for each target. Exit code 1 when something is."""
    from dataclasses import asdict

    from rich.console import Group

    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table
    from dhctl.infra.doctor import examine
    from dhctl.infra.engine_install import ensure_engine
    from dhctl.infra.errors import RefusedError

    home = factory.home()
    if install:
        with Console(as_json) as console:
            ensure_engine(home.root, console.report)
    findings = examine(home)
    rows = [(f.area, f.what, "ok" if f.ok else "MISSING" if f.needed else "-", f.told) for f in findings]
    Console(as_json).document([asdict(f) for f in findings], Group(plain_table(("area", "what", "", ""), rows)))
    missing = [f"{f.area}: {f.what} ({f.told})" for f in findings if f.needed and not f.ok]
    if missing:
        raise RefusedError(f"missing: {'; '.join(missing)}", "`dhctl doctor --install` installs the engine")
