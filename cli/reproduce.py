"""`dhctl reproduce`: the run of a crate once more, and what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dhctl.cli import options

if TYPE_CHECKING:
    from dhctl.cli.console import Console
    from dhctl.infra.crate.differences import Row
    from dhctl.infra.crate.read import Crate
    from dhctl.infra.crate.rebuild import Rebuilt

_place = click.Path(path_type=Path)


@click.command(epilog="Example:  dhctl reproduce own-job.zip --data examples/own-data")
@click.argument("crate", type=_place, metavar="CRATE")
@click.option("--target", metavar="NAME", help="Run there instead of on the target of the crate.")
@click.option("--data", metavar="PLACE", help="Where the data lie here: a folder, an s3:// URL or STORE:FOLDER.")
@click.option("--with", "spec_file", type=_place, metavar="FILE", help="Partial spec with what the crate withholds.")
@click.option("--code", type=_place, metavar="FOLDER", help="The job's folder, where the crate has not all of it.")
@click.option("--dry-run", is_flag=True, help="Only show what can be known to differ before a run.")
@options.as_json
def command(  # noqa: PLR0913, PLR0917 - click passes them by name
    crate: Path,
    target: str | None,
    data: str | None,
    spec_file: Path | None,
    code: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run what a crate of `dhctl export` tells once more, take it down, and show what differs.

    The crate's code runs with your rights. Exit code 0 when the metric lies within the crate's 95 % interval, 1 when it
    does not or there is none.
    """
    from dhctl.cli.console import Console
    from dhctl.infra.crate.differences import before
    from dhctl.infra.crate.read import open_crate
    from dhctl.infra.crate.rebuild import Given, rebuild

    with tempfile.TemporaryDirectory(prefix="dhctl-crate-") as made:
        for name in ("crate", "job"):
            (Path(made) / name).mkdir()
        opened = open_crate(crate, Path(made) / "crate")
        rebuilt = rebuild(opened, Given(target, data, spec_file, code), Path(made) / "job")
        rows = before(opened, rebuilt)
        if dry_run:
            _show(Console(as_json), rows, "Known before a run")
            return
        _run(opened, rebuilt, as_json, rows)


def _run(crate: Crate, rebuilt: Rebuilt, as_json: bool, rows: Iterable[Row]) -> None:
    """Up, train, down, and the comparison. Raises RefusedError when the metric was not reproduced."""
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.outcome import show_outcome
    from dhctl.infra.crate.differences import after, judge
    from dhctl.infra.crate.facts import facts_of
    from dhctl.infra.errors import RefusedError
    from dhctl.infra.interrupts import Interrupts
    from dhctl.infra.run import run

    with Console(as_json) as console, Interrupts(console.warn) as interrupts:
        for row in rows:
            if row.verdict == "differs":
                console.warn(f"{row.what} differs: {row.crate} in the crate, {row.here} here")
        tools = factory.tools(rebuilt.spec, console, interrupts)
        spec = factory.admitted(rebuilt.spec, tools)
        end = run(spec, tools, rebuilt.spec)
        end.record.ledger.note("reproduces", run=crate.run["run"])
        console.receipt(end.receipt)
        show_outcome(console, end.record, end.outcome)
    end.require_success()
    facts = facts_of(end.record)
    judgement = judge(crate, facts)
    _show(console, after(crate, facts), f"{crate.run['run']} and {end.record.run_id}", judgement.sentence)
    if not judgement.reproduced:
        raise RefusedError(judgement.sentence, "the table says what differs")
    console.say(judgement.sentence, run=end.record.run_id, reproduces=crate.run["run"], reproduced=True)


def _show(console: Console, rows: Iterable[Row], title: str, sentence: str = "") -> None:
    from dhctl.cli.tables import plain_table

    listed = list(rows)
    columns = ("what", "crate", "here", "")
    table = plain_table(columns, [(r.what, r.crate, r.here, r.verdict) for r in listed], title)
    console.result("Differences", table, rows=[asdict(row) for row in listed], sentence=sentence)
