"""The only place that prints: one live view on a terminal, timestamped lines elsewhere, JSON lines with --json."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console as Terminal
from rich.live import Live
from rich.text import Text

from dhctl.cli.live_view import LiveView
from dhctl.cli.tables import receipt_table
from dhctl.infra import events
from dhctl.infra.receipt import Receipt, now

PIPE_WIDTH = 120
"""Columns of tables in a file or a pipe, where nobody says how many there are."""


class _Pipe(Terminal):
    """Rich ends the whole process when the reader of a pipe leaves; here the console decides."""

    def on_broken_pipe(self) -> None:
        """Told as any other write that fails."""
        raise BrokenPipeError


class Console:
    """Renders events as they come, from any thread. A reader that leaves (broken pipe) silences it; the run goes on."""

    def __init__(self, as_json: bool = False) -> None:
        self._json, self._lock, self._started = as_json, threading.RLock(), time.monotonic()
        with suppress(AttributeError):  # a terminal that lacks a character shows another instead
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # most streams have it
        self._terminal = _Pipe(soft_wrap=True, highlight=False)
        if not self._terminal.is_terminal:
            self._terminal.width = PIPE_WIDTH
        self._view = LiveView() if self._terminal.is_terminal and not as_json else None
        self._live = Live(self._view, console=self._terminal, refresh_per_second=8) if self._view else None
        self._silent = False

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def report(self, event: events.Event) -> None:
        """Shows one event."""
        with self._lock:
            if self._json:
                self._write_json({"event": type(event).__name__, "at": now(), **asdict(event)})
                return
            if self._view:
                self._view.take(event)
            if not (self._view and self._view.shows(event)):
                self._print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", sentence(event)))

    def warn(self, text: str) -> None:
        """Shows a warning."""
        self.report(events.Warned(text))

    def receipt(self, receipt: Receipt) -> None:
        """Shows the receipt: a table, or one JSON object."""
        with self._lock:
            if self._json:
                self._write_json({"event": "Receipt", **receipt.to_dict()})
            else:
                self._print(receipt_table(receipt))

    def document(self, body: Any, table: object) -> None:
        """What a reporting verb found: `table` for people, `body` as one JSON document with --json."""
        self._guarded(lambda: print(json.dumps(body, indent=2)) if self._json else self._terminal.print(table))

    def result(self, event: str, table: object, **fields: Any) -> None:
        """As `document`, where other lines come before and after: with --json one object on a line."""
        with self._lock:
            if self._json:
                self._write_json({"event": event, **fields})
            else:
                self._print(table)

    def say(self, text: str, **fields: Any) -> None:
        """A closing line for people; with --json the fields."""
        if self._json:
            self._write_json({"event": "Summary", **fields})
        else:
            self._print(Text(text))

    def _write_json(self, body: Mapping[str, Any]) -> None:
        self._guarded(lambda: print(json.dumps(body, default=str), flush=True))

    def _print(self, what: object) -> None:
        self._guarded(lambda: self._terminal.print(what))

    def _guarded(self, write: Any) -> None:
        if self._silent:
            return
        try:
            write()
            sys.stdout.flush()
        except OSError:
            self._silent = True  # the terminal or the pipe's reader is gone: what runs must not end for that
            silence(sys.stdout)


def silence(stream: TextIO) -> None:
    """Lets what is still buffered for a reader who left go nowhere, else Python fails at exit while flushing it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def sentence(event: events.Event) -> Text:
    """One event as a line. What jobs and clouds say is shown as it is, never read as markup."""
    match event:
        case events.PhaseStarted(phase, detail):
            return Text.assemble((phase, "bold"), " ", detail)
        case events.PhaseDone(phase, seconds, detail):
            return Text.assemble((phase, "bold"), f" ended after {seconds:.1f} s  {detail}")
        case events.ResourceChanged(name, kind, status, detail):
            colour = "red" if status == "failed" else "cyan"
            return Text.assemble("  ", (f"{status:9}", colour), f" {kind} {name} {detail}")
        case events.NodeChanged(node, status, alive):
            return Text(f"  worker {node} {status}, {alive} alive")
        case events.JobLogged(line):
            return Text.assemble("  ", ("|", "dim"), " ", Text.from_ansi(line))
        case events.JobProgressed():
            return Text("  " + progress_text(event))
        case events.Noted(text):
            return Text(f"  {text}")
        case events.Warned(text):
            return Text.assemble("  ", ("warning:", "yellow"), f" {text}")


def progress_text(event: events.JobProgressed) -> str:
    """Stage, step and metrics on one line."""
    told = "  ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    return f"{event.stage}: {event.unit} {event.step}/{event.of}  {told}"
