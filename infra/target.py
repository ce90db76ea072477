"""The seam between the life of a run, which is the same everywhere, and the place where it lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from dhctl.infra.events import Report
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ray_api import Connection
from dhctl.infra.receipt import Check
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.ssh import SshEndpoint

Program = Callable[[], Mapping[str, Any]]
"""Declares the resources of a stack, and returns its outputs; the secret ones are `pulumi.Output.secret`."""


@dataclass(frozen=True)
class Requirement:
    """One thing a run needs of its target, as admission found it: `need` and `have` are for people."""

    what: str
    need: str
    have: str
    problem: str = ""
    """A sentence with the next step when it does not suffice; else empty."""
    warning: str = ""
    """A sentence when it suffices, but for fewer workers than were asked for; else empty. `--strict` refuses it."""


@dataclass(frozen=True)
class PlannedResource:
    """One thing that `up` would make."""

    name: str
    kind: str
    made_by: str
    detail: str


@dataclass(frozen=True)
class StackOutputs:
    """What a stack that is up exports. The secret ones stay out of `repr`, the ledger and every log."""

    told: Mapping[str, Any]
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)


class Target(Protocol):
    """What each target offers. All of it can be called again after any interruption."""

    name: TargetName

    def admit(self, spec: RunSpec) -> list[Requirement]:
        """Everything that would fail later, said now. Never writes."""

    def plan(self, spec: RunSpec) -> list[PlannedResource]:
        """What `up` would make. Never writes."""

    def program(self, record: RunRecord) -> Program:
        """The Pulumi program of this run. Each resource carries the run's mark, or its name does."""

    def settle(self, spec: RunSpec) -> RunSpec:
        """The spec with what it leaves to the place decided. Never writes; as it is where the place does not answer."""

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        """The spec with no more workers at most than the target can take now, and a warning; "" when all fit."""

    def start(self, record: RunRecord, outputs: StackOutputs, report: Report, interrupts: Interrupts) -> None:
        """What lies between the stack and a Ray that answers. Raises ClusterError with the node's own words."""

    def lost_head(self, record: RunRecord) -> str:
        """Why the head of a run that was up is gone for good, as a sentence; "" while it is there or comes by itself.

        Never writes. Raises DhctlError when the place cannot be asked.
        """

    def clear_head(self, record: RunRecord, report: Report) -> None:
        """Ends what is left of a head that is lost, and the workers that belonged to it: the next one begins alone.

        What the stack holds beside the head stays. Raises DhctlError when something of it does not go.
        """

    def troubles(self, record: RunRecord) -> list[str]:
        """Sentences on what went wrong that only the target knows, such as why a server did not start. Never raises."""

    def probe_outside(self, record: RunRecord) -> str:
        """What a stranger meets who comes past any tunnel, as a sentence; "" where nothing was tried.

        Raises ClusterError when the run must not go on like that.
        """

    def endpoint(self, record: RunRecord) -> SshEndpoint:
        """The head over SSH. Raises RefusedError where a target has none, NotUpError when the run is not up."""

    def connect(self, record: RunRecord) -> AbstractContextManager[Connection]:
        """A way to the run's Ray, open while inside. Raises NotUpError when there is no cluster to reach."""

    def job_environment(self, record: RunRecord) -> Mapping[str, str]:
        """Environment that a job's driver needs on this target, Ray's address among it. No secrets."""

    def release_nodes(self, record: RunRecord, report: Report) -> None:
        """Stops the autoscaler, so that nothing new starts; then all nodes begin to end, while Pulumi starts."""

    def collect(self, record: RunRecord) -> None:
        """Copies the cluster's logs into the record, before they go."""

    def sweep(self, record: RunRecord, report: Report) -> None:
        """Deletes everything that carries the run's mark and is still there, in the order of its dependencies."""

    def inventory(self, record: RunRecord) -> list[Check]:
        """Looks at the target itself for everything with the run's mark. Never deletes."""
