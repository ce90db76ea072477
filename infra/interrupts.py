"""Ctrl-C, SIGTERM and SIGHUP: the first asks to stop in good order, the second stops now."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from dhctl.infra.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopNow(BaseException):
    """The second request: leave at once and say what remains. Not an Exception, so that no recovery swallows it."""

    def __init__(self, signal_name: str, subject: str | None) -> None:
        super().__init__(signal_name)
        self.subject = subject


class Interrupts:
    """Counts the requests to stop. Used in the main thread, around a whole verb."""

    def __init__(self, told: Callable[[str], None] = lambda sentence: None) -> None:
        """`told` gets a sentence for the user when the first request comes."""
        self.reason: str | None = None
        self._told = told
        self.subject: str | None = None
        """The run at stake, for the sentence after a stop in the middle."""
        self._forward: list[Callable[[], Any]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup and background jobs ask for it to be ignored
                self._before[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.reason is not None:
            raise StopNow(signal.Signals(signum).name, self.subject)
        self.reason = signal.Signals(signum).name
        for forward in list(self._forward):
            forward()
        with suppress(RuntimeError):  # the signal came in the middle of a print, which cannot be entered twice
            self._told(f"{self.reason}: finishing this step, then stopping in good order; once more stops at once")

    def check(self) -> None:
        """Raises InterruptedRunError when a stop was asked for."""
        if self.reason is not None:
            raise InterruptedRunError(f"stopped by {self.reason}")

    @contextmanager
    def forwarding(self, to: Callable[[], Any]) -> Iterator[None]:
        """While inside, a first request to stop is also passed on by calling `to`."""
        self._forward.append(to)
        try:
            yield
        finally:
            self._forward.remove(to)
