"""Modules that are imported beside a wait: Pulumi's packages take as long as a cloud's first answers."""

from __future__ import annotations

import importlib
from threading import Thread

ENGINE = "dhctl.infra.engine"


def load_early(*modules: str) -> None:
    """Imports them on a thread of their own. What fails there fails again, and is told, where they are needed."""
    Thread(target=lambda: [importlib.import_module(name) for name in modules], name="imports", daemon=True).start()
