"""`dhctl data`: what lies in a store, copying a dataset to another store, and comparing one with its manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dhctl.cli import options

if TYPE_CHECKING:
    from dhctl.infra.data.datasets import Dataset


@click.group("data", epilog="Example:  dhctl data ls")
def command() -> None:
    """Look at data stores, copy datasets between them, verify copies."""


@command.command("ls", epilog="Example:  dhctl data ls pathology:2025")
@click.argument("place", metavar="[NAME[:FOLDER]]", required=False)
@options.as_json
def ls(place: str | None, as_json: bool) -> None:
    """List the known stores, or files and bytes in a store, folder or s3:// URL."""
    from dhctl.cli.console import Console
    from dhctl.cli.data_tables import listing_body, listing_table, stores_body, stores_table
    from dhctl.infra.data.datasets import store_troubles
    from dhctl.infra.data.listing import listing
    from dhctl.infra.data.user_stores import user_stores

    console = Console(as_json)
    if place is None:
        stores = user_stores()
        console.document(stores_body(stores), stores_table(stores))
        return
    dataset = _dataset(place)
    with store_troubles():
        found = listing(dataset.open(lambda text: click.echo(text, err=True)))
    console.document(listing_body(dataset, found), listing_table(dataset, found))


@command.command("stage", epilog="Example:  dhctl data stage pathology:2025/biopsies --to cloud:biopsies")
@click.argument("source", metavar="SPEC|NAME[:FOLDER]")
@click.option("--to", "target", metavar="NAME[:FOLDER]", required=True, help="Where the copy goes.")
@click.option("--allow-identifiers", is_flag=True, help="Copy although DICOM headers hold patients' identifiers.")
@options.as_json
def stage(source: str, target: str, allow_identifiers: bool, as_json: bool) -> None:
    """Copy a dataset to another store, with a manifest of SHA-256 checksums. Called again, it goes on.

    DICOM headers are checked first, against the basic de-identification profile (docs/data.md).
    """
    from dataclasses import asdict

    from dhctl.cli.console import Console
    from dhctl.infra.data.datasets import dataset_of
    from dhctl.infra.data.staging import IdentifiersFoundError
    from dhctl.infra.data.staging import stage as copy
    from dhctl.infra.events import PhaseDone, PhaseStarted
    from dhctl.infra.units import format_size

    from_where = _dataset(source)
    to_where = dataset_of(target, from_where.stores)
    with Console(as_json) as console:
        console.report(PhaseStarted("data", f"{from_where.told} to {to_where.told}"))
        try:
            done = copy(from_where, to_where, console.report, allow_identifiers=allow_identifiers)
        except IdentifiersFoundError as error:
            if as_json:
                console.say("", findings=[asdict(finding) for finding in error.findings])
            raise
        console.report(PhaseDone("data", done.seconds))
    size = format_size(done.copied.size_bytes)
    told = (
        f"{done.copied.files} files, {size}, of which {done.copied.there_already} were there; manifest.json is written"
    )
    if done.findings:
        told += f"\n{len(done.findings)} identifiers in DICOM headers were copied with them (--allow-identifiers)"
    console.say(told, to=to_where.told, **asdict(done.copied), findings=[asdict(f) for f in done.findings])


@command.command("verify", epilog="Example:  dhctl data verify cloud:biopsies")
@click.argument("place", metavar="SPEC|NAME[:FOLDER]")
@options.as_json
def verify(place: str, as_json: bool) -> None:
    """Read a dataset and compare it with its manifest; name what differs. Exit code 1 when something does."""
    from dataclasses import asdict

    from dhctl.cli.console import Console
    from dhctl.infra.data.verifying import DataDiffersError
    from dhctl.infra.data.verifying import verify as compare
    from dhctl.infra.events import PhaseDone, PhaseStarted
    from dhctl.infra.units import format_size

    dataset = _dataset(place)
    with Console(as_json) as console:
        console.report(PhaseStarted("data", f"verify {dataset.told}"))
        found = compare(dataset, console.report)
        console.report(PhaseDone("data", found.seconds))
    told = f"{found.files} files, {format_size(found.size_bytes)}: {len(found.differences)} differ from the manifest"
    differences = [asdict(difference) for difference in found.differences]
    console.say(told, place=dataset.told, files=found.files, size_bytes=found.size_bytes, differences=differences)
    if found.differences:
        raise DataDiffersError(dataset.told, found.differences)


def _dataset(word: str) -> Dataset:
    from dhctl.infra.data.datasets import dataset_of
    from dhctl.infra.data.user_stores import user_stores

    return dataset_of(word, user_stores())
