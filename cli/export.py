"""`dhctl export`: the record of a run as an RO-Crate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dhctl.cli import options

if TYPE_CHECKING:
    from dhctl.infra.crate.layout import Agent


_ORCID = re.compile(r"(?P<name>[^,]+?)(?:,?\s+(?:https://orcid\.org/)?(?P<orcid>\d{4}-\d{4}-\d{4}-\d{3}[\dX]))?\s*")


def _agent(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Agent | None:
    """A name, with an ORCID after it or without."""
    if value is None:
        return None
    from dhctl.infra.crate.layout import Agent

    found = _ORCID.fullmatch(value)
    if found is None:
        raise click.BadParameter("write a name, and an ORCID after it if there is one: 'Ada Rossi 0000-0002-1825-0097'")
    return Agent(found["name"], found["orcid"])


@click.command(epilog="Example:  dhctl export own-job -o own-job.zip")
@options.run_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE.zip",
    help="Where to write; by default RUN_ID.crate.zip here.",
)
@click.option("--with-checkpoints", is_flag=True, help="Copy models and checkpoints too, not only their digests.")
@click.option("--with-param", "params", multiple=True, metavar="NAME", help="Tell this text of job.params too.")
@click.option(
    "--with-code", "code", multiple=True, metavar="PATTERN", help="Put these files of the job's folder in too."
)
@click.option("--agent", metavar="'NAME ORCID'", callback=_agent, help="Who started the run; else nobody is named.")
@click.option("--license", "license_url", metavar="URL", help="The crate's licence.")
@options.as_json
def command(  # noqa: PLR0913, PLR0917 - click passes them by name
    run: str,
    output: Path | None,
    with_checkpoints: bool,
    params: tuple[str, ...],
    code: tuple[str, ...],
    agent: Agent | None,
    license_url: str | None,
    as_json: bool,
) -> None:
    """Write a run's record as an RO-Crate (Process Run Crate) that others can check and run again.

    Only what is on dhctl's lists goes in; a crate that would hold a secret or an identifier of the run's tables is not
    written, and the sentence says where it is.
    """
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.infra.crate.write import Wanted, write_crate

    record = factory.record(run)
    wanted = Wanted(with_checkpoints, frozenset(params), code, agent, license_url)
    written = write_crate(record, output or Path(f"{record.run_id}.crate.zip"), wanted)
    what = "it" if written.path.is_file() else "its metadata"
    lines = [f"wrote {written.path}; SHA-256 of {what}: {written.sha256}", *written.remarks]
    told = {"run": record.run_id, "crate": str(written.path), "sha256": written.sha256}
    Console(as_json).say("\n".join(lines), **told, withheld=list(written.withheld), remarks=list(written.remarks))
