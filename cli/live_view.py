"""What a terminal shows while a run lives: the phase, the engine's resources, the workers, how far the job is."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dhctl.infra import events

MARKS = {"created": ("✓", "green"), "deleted": ("✓", "green"), "failed": ("✗", "red"), "unchanged": ("·", "dim")}


class LiveView:
    """Keeps the newest state of what events tell, and draws it. The lines above it are the console's."""

    def __init__(self) -> None:
        self._phase, self._detail, self._since = "", "", time.monotonic()
        self._resources: dict[str, events.ResourceChanged] = {}
        self._workers: int | None = None
        self._progress: events.JobProgressed | None = None
        self._spinner = Spinner("dots", style="cyan")

    def take(self, event: events.Event) -> None:
        """Notes what the event changes."""
        match event:
            case events.PhaseStarted(phase, detail):
                self._phase, self._detail, self._since = phase, detail, time.monotonic()
                self._resources.clear()
                self._progress = None
            case events.PhaseDone():
                self._phase = ""
                self._resources.clear()
                self._progress = None
            case events.ResourceChanged():
                self._resources[event.name] = event
            case events.NodeChanged():
                self._workers = event.alive
            case events.JobProgressed():
                self._progress = event
            case _:
                return

    def shows(self, event: events.Event) -> bool:
        """Whether the view itself shows the event, so that no line is needed for it."""
        starting = isinstance(event, events.ResourceChanged) and event.status in ("creating", "deleting")
        return starting or isinstance(event, events.PhaseStarted)

    def __rich__(self) -> RenderableType:
        if not self._phase:
            return Text("")
        rows: list[RenderableType] = [self._head_line()]
        if self._resources:
            rows.append(Text("  ").join(self._resource(r) for r in self._resources.values()))
        if self._progress:
            rows.append(self._progress_line(self._progress))
        return Group(*rows)

    def _head_line(self) -> RenderableType:
        elapsed = time.monotonic() - self._since
        workers = "" if self._workers is None else f"  workers: {self._workers}"
        self._spinner.update(text=Text(f"{self._phase} {self._detail}  {elapsed:.0f} s{workers}", style="bold"))
        return self._spinner

    @staticmethod
    def _resource(event: events.ResourceChanged) -> Text:
        mark, style = MARKS.get(event.status, ("…", "cyan"))
        return Text(f"  {mark} {event.kind} {event.name}", style=style)

    @staticmethod
    def _progress_line(event: events.JobProgressed) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        told = "  ".join(f"{name} {value:.3g}" for name, value in event.metrics.items())
        bar = ProgressBar(total=event.of, completed=event.step, width=30)
        grid.add_row(f"  {event.stage}", bar, f"{event.unit} {event.step}/{event.of}", told)
        return grid
