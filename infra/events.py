"""What happens during a run, as frozen objects handed to a `Report`; only `dhctl.cli.console` renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of the run's life begins: "engine", "up", "job", "head", "down"."""

    phase: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseDone:
    """The phase ended well after `seconds`."""

    phase: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ResourceChanged:
    """The engine (or an installer) works on one resource."""

    name: str
    kind: str
    status: Literal["creating", "created", "deleting", "deleted", "failed", "unchanged"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node of the Ray cluster came or went; `node` is its address, `name` its name in the ledger, empty where Ray was
    not told it; `alive` counts the workers that are alive now."""

    node: str
    status: Literal["joined", "left"]
    alive: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class JobLogged:
    """One line the job printed, without its line end."""

    line: str


@dataclass(frozen=True, slots=True)
class JobProgressed:
    """The job, or a verb that moves data, says how far it is: `step` of `of` in `unit`s of `stage`."""

    stage: str
    step: int
    of: int
    unit: str = "epoch"
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Noted:
    """Something worth a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should act on; the run goes on."""

    text: str


Event = PhaseStarted | PhaseDone | ResourceChanged | NodeChanged | JobLogged | JobProgressed | Noted | Warned
Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A `Report` for callers who do not watch."""
