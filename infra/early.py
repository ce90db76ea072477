"""Work that is begun beside a wait: Pulumi's packages and its CLI take as long as a cloud's first answers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

ENGINE = "dhctl.infra.engine"

T = TypeVar("T")


def load_early(*modules: str) -> None:
    """Imports them on a thread of their own. What fails there fails again, and is told, where they are needed."""
    begin(lambda: [importlib.import_module(name) for name in modules])


def begin(work: Callable[[], T]) -> Callable[[], T]:
    """Does `work` on a thread of its own, for which the process does not wait at its end. What is returned waits for
    it, and gives what it gave or raises what it raised.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    Thread(target=run, name="begun early", daemon=True).start()
    return outcome.result
