"""Tables for people: receipt, runs, plan, requirements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from dhctl.infra.receipt import Leftover, Receipt
from dhctl.infra.status import local_time

if TYPE_CHECKING:
    from dhctl.infra.marked_run import MarkedRun

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
    left = [_leftover(found) for found in receipt.leftovers]
    made = ", ".join(f"{count} {what}" for what, count in receipt.created.items()) or "nothing"
    verdict = "[bold green]clean: nothing is left[/bold green]" if receipt.clean else "[bold red]NOT clean[/bold red]"
    remarks = [escape(remark) for remark in receipt.remarks]
    return Group(table, *left, *remarks, f"Made in its life: {made}. {verdict}")


def reaped_table(run: MarkedRun) -> RenderableType:
    """A run found in a project's lists: what it had, and after it was ended what is left."""
    ends = local_time(run.to_dict()["lease_ends"])
    had = plain_table(
        ("kind", "name", "id"), [(o.kind, o.name, o.id) for o in run.owned], f"{run.run_id}, lease {ends}"
    )
    if not run.checks:
        return had
    left = [_leftover(found) for check in run.checks for found in check.found]
    left += [f"  {escape(c.place)} could not be looked at: {escape(c.unknown)}" for c in run.checks if c.unknown]
    return Group(
        had, *left, "[bold green]nothing is left[/bold green]" if run.clean else "[bold red]NOT clean[/bold red]"
    )


def _leftover(found: Leftover) -> str:
    why = f"\n    {escape(found.reason)}" if found.reason else ""
    return f"  {escape(found.kind)} {escape(found.name)}: [bold]{escape(found.remove_with)}[/bold]{why}"
