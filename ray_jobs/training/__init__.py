"""The training core: a job gives a Task, the core trains it on any number of workers and goes on after any loss.

For a job of one's own: `read_settings` and `run`, and a class with the methods of `Task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhctl.ray_jobs.training.own import read_settings, run
    from dhctl.ray_jobs.training.settings import TrainingSettings
    from dhctl.ray_jobs.training.task import Dataset, Metrics, Part, Task, Watched

__all__ = ["Dataset", "Metrics", "Part", "Task", "TrainingSettings", "Watched", "read_settings", "run"]

_HOMES = {"run": "own", "read_settings": "own", "TrainingSettings": "settings"}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used: settings are read by admission, which must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'task')}"), name)
