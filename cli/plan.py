"""`dhctl plan`: what a run would make, whether it would be admitted, how long it usually takes. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dhctl.cli import options

if TYPE_CHECKING:
    from dhctl.infra.target import Requirement


@click.command(epilog="Example:  dhctl plan examples/prostate-local.yaml")
@options.spec_file
@options.target
@options.strict
@options.as_json
def command(spec_file: Path, target: str | None, strict: bool, as_json: bool) -> None:
    """Show what `dhctl run SPEC` would make, and whether this place can take it. Writes nothing."""
    from dataclasses import asdict

    from rich.console import Group

    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table
    from dhctl.infra.admission import refused, requirements
    from dhctl.infra.errors import AdmissionError
    from dhctl.infra.usual import usual_durations
    from dhctl.stacks.targets import target_for

    spec = factory.spec(spec_file, target)
    place = target_for(spec.target)
    spec = place.settle(spec)
    needed, planned = requirements(spec, place), place.plan(spec)
    usual = usual_durations(factory.home(), spec)
    body = {
        "spec": spec.model_dump(mode="json"),
        "resources": [asdict(r) for r in planned],
        "requirements": [asdict(r) for r in needed],
        "usual_seconds": {u.phase: u.seconds for u in usual},
    }
    made = plain_table(("would make", "kind", "by", ""), [(r.name, r.kind, r.made_by, r.detail) for r in planned])
    asked = plain_table(("needs", "wanted", "found", ""), [(r.what, r.need, r.have, _verdict(r)) for r in needed])
    times = plain_table(("phase", "usually", "known from"), [(u.phase, u.text, u.source) for u in usual])
    Console(as_json).document(body, Group(made, "", asked, "", times))
    for warning in (r.warning for r in needed if r.warning and not strict):
        click.echo(click.style("Warning: ", fg="yellow", bold=True) + warning, err=True)
    problems = refused(needed, strict=strict)
    if problems:
        raise AdmissionError(spec.target.value, problems)


def _verdict(found: Requirement) -> str:
    return "NO" if found.problem else "less" if found.warning else "ok"
