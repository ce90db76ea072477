"""`dhctl report`: one HTML page that tells a run."""

from __future__ import annotations

from pathlib import Path

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl report prostate-demo --tariffs tariffs.yaml -o prostate.html")
@options.run_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write it there; by default RUN_ID.report.html here.",
)
@click.option(
    "--tariffs", type=click.Path(path_type=Path), metavar="FILE", help="Prices in YAML: the page then shows the cost."
)
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@options.as_json
def command(run: str, output: Path | None, tariffs: Path | None, open_it: bool, as_json: bool) -> None:
    """Write one HTML page that tells a run: timeline, curves, workers, cost, receipt; it needs no network."""
    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.infra.report_page.tariff import load_tariff
    from dhctl.infra.report_page.write import write_page

    tariff = load_tariff(tariffs) if tariffs else None
    record = factory.record(run)
    path, verdict = write_page(record, output or Path(f"{record.run_id}.report.html"), tariff)
    told = {"run": record.run_id, "verdict": verdict.title, "file": str(path)}
    Console(as_json).say(f"{record.run_id}: {verdict.title}; the report is {path}", **told)
    if open_it:
        click.launch(path.as_uri())
