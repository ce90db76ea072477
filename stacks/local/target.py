"""The local target: this machine as a place for runs. No account, no cloud, no root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dhctl.infra.errors import ClusterError, NotUpError, RefusedError
from dhctl.infra.events import Report
from dhctl.infra.home import nearest_existing
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ledger import last
from dhctl.infra.local import head, inventory, machine
from dhctl.infra.local.layout import LONGEST_SOCKET, SOCKET_PATH_LIMIT, RunFolder, scratch_root
from dhctl.infra.local.nodes import ClusterSettings
from dhctl.infra.ray_api import Connection
from dhctl.infra.receipt import Check
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import PlannedResource, Program, Requirement, StackOutputs
from dhctl.infra.units import format_duration, format_size

NEEDED_DISK_BYTES = 2**30
"""Free space wanted in the run folder: logs, sockets and spilled objects of a small cluster."""


def settings_of(record: RunRecord) -> ClusterSettings:
    """The cluster's settings as the spec and the lease give them."""
    spec = record.spec
    return ClusterSettings(
        run_id=record.run_id,
        name=spec.name,
        ledger=str(record.ledger.path),
        scratch=str(scratch_root(spec)),
        expires_at=record.expires_at.timestamp(),
        min_workers=spec.workers.min,
        max_workers=spec.workers.max,
        worker_cpus=spec.workers.cpus,
        worker_gpus=spec.workers.gpus,
        worker_memory_bytes=spec.workers.memory,
        idle_timeout_s=spec.workers.idle_timeout.total_seconds(),
        dashboard_port=spec.local.dashboard_port,
    )


class LocalTarget:
    """Implements `dhctl.infra.target.Target`."""

    name = TargetName.LOCAL

    def admit(self, spec: RunSpec) -> list[Requirement]:
        """Capacity, disk, permission and path length of the scratch folder, and the dashboard's port."""
        found = machine.look(scratch_root(spec))
        return [*_capacity(spec, found), *_scratch(spec, found), *_port(spec)]

    def plan(self, spec: RunSpec) -> list[PlannedResource]:
        """Run folder, token, head, autoscaled workers."""
        size, scratch = spec.workers, scratch_root(spec)
        worker = f"{size.cpus} CPU, {size.gpus} GPU, {format_size(size.memory)}"
        idle = f"leaves after {format_duration(size.idle_timeout)} idle"
        return [
            PlannedResource("run-folder", "RunFolder", "Pulumi", f"{scratch}/<run id>, mode 0700"),
            PlannedResource("token", "TokenSecret", "Pulumi", "256 bits, file of mode 0600"),
            PlannedResource("head", "HeadNode", "Pulumi", "Ray head on 127.x.y.2, dashboard on 127.0.0.1, 0 CPU"),
            PlannedResource("autoscaler", "process", "dhctl", "Ray's autoscaler v2"),
            PlannedResource(f"{size.min} to {size.max} workers", "process tree", "autoscaler", f"{worker}; {idle}"),
        ]

    def program(self, record: RunRecord) -> Program:
        """stacks/local/program.py with this run's settings."""
        from dhctl.stacks.local.program import declare  # brings in Pulumi, which few verbs need

        settings = settings_of(record)
        return lambda: declare(settings)

    def settle(self, spec: RunSpec) -> RunSpec:
        """Nothing is left open."""
        return spec

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        """All or nothing: what the machine lacks was said by `admit`."""
        return spec, ""

    def start(self, record: RunRecord, outputs: StackOutputs, report: Report, interrupts: Interrupts) -> None:
        """Nothing: the stack's head resource answers when it is made."""

    def lost_head(self, record: RunRecord) -> str:
        """Whether the head's supervisor lives: without it none of the head's processes does."""
        return "" if head.head_alive(settings_of(record)) else "its processes have ended"

    def clear_head(self, record: RunRecord, report: Report) -> None:
        """All processes of the run: autoscaler, workers, and what a job's driver left."""
        settings = settings_of(record)
        if settings.folder.is_ours():
            head.stop_head(settings)
        inventory.end_processes(settings.folder, record.ledger)

    def troubles(self, record: RunRecord) -> list[str]:
        """None: what goes wrong on this machine is in the nodes' logs."""
        return []

    def probe_outside(self, record: RunRecord) -> str:
        """Nothing: Ray's ports listen on all addresses of this machine (docs/guide.md, "Watching")."""
        return ""

    def endpoint(self, record: RunRecord) -> SshEndpoint:
        """There is none."""
        raise RefusedError(f"{record.run_id} lives on this machine", "open a shell; its files lie in the run folder")

    @contextmanager
    def connect(self, record: RunRecord) -> Iterator[Connection]:
        """Straight to the head's loopback ports."""
        up = last(record.ledger.entries(), "stack.up", "done")
        token = self._folder(record).token
        if up is None or not token.exists():
            raise NotUpError(f"{record.run_id} is not up", f"`dhctl status {record.run_id}` shows what became of it")
        address, ports = up.detail["outputs"]["address"], up.detail["outputs"]["ports"]
        started = head.Head("", address, {name: int(port) for name, port in ports.items()})
        yield started.connection(token)

    def job_environment(self, record: RunRecord) -> Mapping[str, str]:
        """The Ray of this run, so that a foreign Ray on the machine is never found by accident."""
        with self.connect(record) as connection:
            return {"RAY_ADDRESS": connection.gcs_address}

    def release_nodes(self, record: RunRecord, report: Report) -> None:
        """Autoscaler first, so that nothing new starts; then all nodes begin to stop; the head's delete waits."""
        settings = settings_of(record)
        if settings.folder.is_ours():
            head.begin_stop(settings)

    def collect(self, record: RunRecord) -> None:
        """Supervisors' logs, and of Ray's session the drivers', the autoscaler's and what went to stderr."""
        folder = self._folder(record)
        sources = [*folder.logs.glob("*.log")]
        for pattern in ("job-driver-*.log", "monitor.*", "raylet.err", "gcs_server.err"):
            sources += folder.path.glob(f"tmp/*/session_2*/logs/{pattern}")
        record.logs_dir.mkdir(exist_ok=True)
        for source in sources:
            if source.is_file() and source.stat().st_size:
                shutil.copy2(source, record.logs_dir / source.name)

    def sweep(self, record: RunRecord, report: Report) -> None:
        """Processes, then the folder."""
        inventory.sweep(self._folder(record), record.ledger)

    def inventory(self, record: RunRecord) -> list[Check]:
        """Processes, listening ports, run folder."""
        return inventory.look(self._folder(record), record.ledger)

    @staticmethod
    def _folder(record: RunRecord) -> RunFolder:
        return RunFolder(scratch_root(record.spec), record.run_id)


def _capacity(spec: RunSpec, found: machine.Machine) -> Iterator[Requirement]:
    size = spec.workers
    fix = "lower workers.max or make the workers smaller"
    for what, need, have in (
        ("CPU cores", size.max * size.cpus, found.cpus),
        ("GPUs", size.max * size.gpus, found.gpus),
    ):
        problem = f"{size.max} workers need {need} {what} and this machine has {have}; {fix}" if need > have else ""
        yield Requirement(what, str(need), str(have), problem)
    need, have = machine.HEAD_MEMORY_BYTES + size.max * size.memory, found.memory_bytes
    told = f"{size.max} workers and the head need {format_size(need)} memory and {format_size(have)} are free; {fix}"
    yield Requirement("memory", format_size(need), format_size(have), told if need > have else "")


def _scratch(spec: RunSpec, found: machine.Machine) -> Iterator[Requirement]:
    root = scratch_root(spec)
    existing = nearest_existing(root)
    problem = ""
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission to make {root}; set local.scratch to a folder of yours"
    elif root.exists() and root.stat().st_uid != os.getuid():
        problem = f"{root} belongs to another user; set local.scratch to a folder of yours"
    elif len(os.fsencode(str(root) + LONGEST_SOCKET)) > SOCKET_PATH_LIMIT:
        room = SOCKET_PATH_LIMIT - len(LONGEST_SOCKET)
        problem = f"{root} is too long a path for Ray's sockets; set local.scratch to one of at most {room} characters"
    yield Requirement("scratch folder", "writable, short path", str(root), problem)
    need, have = NEEDED_DISK_BYTES, found.disk_bytes
    told = (
        f"{format_size(need)} are needed under {root} and {format_size(have)} are free; free some or set local.scratch"
    )
    yield Requirement("disk", format_size(need), format_size(have), told if have < need else "")


def _port(spec: RunSpec) -> Iterator[Requirement]:
    port = spec.local.dashboard_port
    if port is None:
        return
    problem = ""
    try:
        head.require_free(port)
    except ClusterError as error:
        problem = str(error)
    yield Requirement("dashboard port", str(port), "taken" if problem else "free", problem)
