"""The composition root: from a command's words to objects that work together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dhctl.cli.console import Console
from dhctl.infra.home import Home, default_root
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.record import RunRecord, find_record
from dhctl.infra.spec import RunSpec
from dhctl.infra.spec_file import load_spec
from dhctl.infra.target import Target
from dhctl.stacks.targets import target_for

if TYPE_CHECKING:
    from dhctl.infra.engine import Engine
    from dhctl.infra.events import Report
    from dhctl.infra.marked_run import MarkedRun
    from dhctl.infra.up import Tools


def home() -> Home:
    """dhctl's own folder. Raises StateFolderError when a newer dhctl wrote it."""
    found = Home(default_root())
    found.check_format()
    return found


def spec(path: Path, target: str | None, resume: str | None = None) -> RunSpec:
    """The spec in a file, changed by what the command line says. Raises SpecError, UnknownRunError."""
    found = load_spec(path, target=target)
    return found.model_copy(update={"resume": record(resume).output}) if resume else found


def record(wanted: str) -> RunRecord:
    """The run a user names. Raises UnknownRunError."""
    return find_record(home(), wanted)


def target_of(run: RunRecord) -> Target:
    """Where a run lives."""
    return target_for(run.spec.target)


def engines(console: Console, interrupts: Interrupts | None) -> Callable[[RunRecord], Engine]:
    """Makes the engine of a run; finds or installs the Pulumi CLI the first time one is needed."""
    from dhctl.infra.engine_install import ensure_engine

    @cache
    def binary(root: Path) -> Path:
        return ensure_engine(root, console.report)

    def engine_of(run: RunRecord) -> Engine:
        from dhctl.infra.engine import Engine  # brings in Pulumi, half a second

        return Engine(run, binary(run.home.root), console.report, sys.executable, interrupts)

    return engine_of


@dataclass(frozen=True)
class Reaper:
    """Finding and ending runs of one place without a record of them."""

    expired: Callable[[str | None], list[MarkedRun]]
    end: Callable[[MarkedRun], MarkedRun]


def openstack_reaper(cloud: str | None, report: Report) -> Reaper:
    """Of a project. Raises CloudError."""
    from dhctl.infra.openstack import reap
    from dhctl.infra.openstack.cloud import connect
    from dhctl.infra.openstack.section import OpenStackSection

    project = connect(OpenStackSection(cloud=cloud))
    return Reaper(lambda run_id: reap.expired(project, report, run_id), lambda run: reap.end(project, run, report))


def kubernetes_reaper(context: str | None, namespace: str | None, report: Report) -> Reaper:
    """Of a namespace, or of all that the caller may list. Raises ClusterApiError."""
    from dhctl.infra.kubernetes import reap
    from dhctl.infra.kubernetes.client import connect
    from dhctl.infra.kubernetes.section import KubernetesSection

    cluster = connect(KubernetesSection(context=context, namespace=namespace))
    return Reaper(lambda run_id: reap.expired(cluster, run_id, namespace), lambda run: reap.end(cluster, run, report))


def tools(spec: RunSpec, console: Console, interrupts: Interrupts) -> Tools:
    """Everything a run of this spec works with."""
    from dhctl.infra.up import Tools

    return Tools(home(), target_for(spec.target), engines(console, interrupts), console.report, interrupts)


def admitted(spec: RunSpec, tools: Tools, *, strict: bool = False) -> RunSpec:
    """The spec as it can be brought up now. The engine is looked for and imported while admission waits; what fails
    there fails again, and is told, when it is needed. Raises AdmissionError.
    """
    from dhctl.infra.admission import admit
    from dhctl.infra.early import ENGINE, begin, load_early
    from dhctl.infra.engine_install import find_engine

    begin(lambda: find_engine(tools.home.root))
    load_early(ENGINE, f"dhctl.stacks.{spec.target.value}.program")
    return admit(spec, tools.target, tools.report, strict=strict)
