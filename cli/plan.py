"""`dhctl plan`: what a run would make, whether it would be admitted, how long it usually takes. Writes nothing."""

from __future__ import annotations

from pathlib import Path

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl plan examples/prostate-local.yaml")
@options.spec_file
@options.target
@options.as_json
def command(spec_file: Path, target: str | None, as_json: bool) -> None:
    """Show what `dhctl run SPEC` would make, and whether this place can take it. Writes nothing."""
    from dataclasses import asdict

    from rich.console import Group

    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table
    from dhctl.infra.admission import requirements
    from dhctl.infra.errors import AdmissionError
    from dhctl.infra.usual import usual_durations
    from dhctl.stacks.targets import target_for

    spec = factory.spec(spec_file, target)
    place = target_for(spec.target)
    needed, planned = requirements(spec, place), place.plan(spec)
    usual = usual_durations(factory.home(), spec)
    body = {
        "spec": spec.model_dump(mode="json"),
        "resources": [asdict(r) for r in planned],
        "requirements": [asdict(r) for r in needed],
        "usual_seconds": {u.phase: u.seconds for u in usual},
    }
    made = plain_table(("would make", "kind", "by", ""), [(r.name, r.kind, r.made_by, r.detail) for r in planned])
    asked = plain_table(
        ("needs", "wanted", "found", ""), [(r.what, r.need, r.have, "NO" if r.problem else "ok") for r in needed]
    )
    times = plain_table(("phase", "usually", "known from"), [(u.phase, u.text, u.source) for u in usual])
    Console(as_json).document(body, Group(made, "", asked, "", times))
    problems = [r.problem for r in needed if r.problem]
    if problems:
        raise AdmissionError(spec.target.value, problems)
