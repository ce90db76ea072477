"""Tables for people: receipt, runs, plan, requirements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from dhctl.infra.receipt import Receipt

STATES = {"none": "[green]nothing[/green]", "left": "[red]LEFT[/red]", "unknown": "[yellow]UNKNOWN[/yellow]"}


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A table without frills; texts are shown as they are, without markup."""
    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def receipt_table(receipt: Receipt) -> RenderableType:
    """The receipt: one row a place, then each thing left with the command that removes it, then the verdict."""
    title = f"Receipt of {receipt.run_id} ({receipt.name}, {receipt.target}), {receipt.reason}"
    table = Table("Looked at", "for", "found", title=escape(title), title_justify="left", title_style="bold")
    for check in receipt.checks:
        found = STATES[check.state] + (f": {escape(check.unknown)}" if check.unknown else "")
        table.add_row(escape(check.place), escape(check.looked_for), found)
    left = [f"  {escape(x.kind)} {escape(x.name)}: [bold]{escape(x.remove_with)}[/bold]" for x in receipt.leftovers]
    made = ", ".join(f"{count} {what}" for what, count in receipt.created.items())
    verdict = "[bold green]clean: nothing is left[/bold green]" if receipt.clean else "[bold red]NOT clean[/bold red]"
    return Group(table, *left, f"Made in its life: {made}. {verdict}")
