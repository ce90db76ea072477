"""Small real stand-ins for the seams, and the few builders that many tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dhctl.infra.engine_state import StackState
from dhctl.infra.errors import NotUpError
from dhctl.infra.events import Report
from dhctl.infra.home import Home
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ledger import Entry, Phase
from dhctl.infra.local.nodes import ClusterSettings
from dhctl.infra.processes import ProcessMark
from dhctl.infra.ray_api import Connection
from dhctl.infra.receipt import Check, Leftover
from dhctl.infra.record import RunRecord, open_record
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import PlannedResource, Program, Requirement, StackOutputs, Target

OWN_JOB = {"folder": "/nowhere", "entrypoint": "python main.py"}


def make_spec(**changes: Any) -> RunSpec:
    """A valid spec of a job of one's own."""
    return RunSpec.model_validate({"name": "trial", "job": OWN_JOB, **changes})


def make_record(home: Home, **changes: Any) -> RunRecord:
    """The record of a run just opened, by a client of an earlier boot: nobody is signalled for it."""
    time.sleep(0.002)  # a ledger's times are whole milliseconds, and tests ask for the newest run
    return open_record(home, make_spec(**changes), "0.0", ProcessMark(os.getpid(), 1, "earlier").to_dict())


def kubernetes_record(home: Home, ray: str = "pods") -> RunRecord:
    """That of a run in the namespace `lab`, whose pods are made as `kubernetes.ray` says."""
    return make_record(home, target="kubernetes", kubernetes={"namespace": "lab", "image": "ray", "ray": ray})


def entry_at(second: int, act: str, phase: Phase = "note", **detail: Any) -> Entry:
    """A line of a ledger, so many seconds after the begin of 2026."""
    return Entry(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second), act, phase, detail)


def make_settings(folder: Path, **changes: Any) -> ClusterSettings:
    """Settings of a local cluster whose run folder lies under `folder`."""
    values = {
        "run_id": "dh-aaaabbbbcc",
        "name": "trial",
        "ledger": str(folder / "ledger.jsonl"),
        "scratch": str(folder / "scratch"),
        "expires_at": 4e9,
        "min_workers": 0,
        "max_workers": 2,
        "worker_cpus": 1,
        "worker_gpus": 0,
        "worker_memory_bytes": 2**30,
        "idle_timeout_s": 60.0,
    }
    return ClusterSettings(**{**values, **changes})


class FakeTarget:
    """A place without a place: notes what it is asked, fails where it is told to, finds what it is told is left."""

    name = TargetName.LOCAL

    def __init__(self, left: tuple[Leftover, ...] = (), fails: Mapping[str, Exception] | None = None) -> None:
        self.left, self.fails = left, dict(fails or {})
        self.calls: list[str] = []
        self.told: list[str] = []
        self.lost = ""

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fails:
            raise self.fails[what]

    def admit(self, spec: RunSpec) -> list[Requirement]:
        return [Requirement("room", "1", "1")]

    def plan(self, spec: RunSpec) -> list[PlannedResource]:
        return []

    def program(self, record: RunRecord) -> Program:
        return dict

    def settle(self, spec: RunSpec) -> RunSpec:
        return spec

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        return spec, ""

    def start(self, record: RunRecord, outputs: StackOutputs, report: Report, interrupts: Interrupts) -> None:
        self._called("start")

    def lost_head(self, record: RunRecord) -> str:
        self._called("lost_head")
        return self.lost

    def clear_head(self, record: RunRecord, report: Report) -> None:
        self._called("clear_head")

    def troubles(self, record: RunRecord) -> list[str]:
        return list(self.told)

    def probe_outside(self, record: RunRecord) -> str:
        return ""

    def endpoint(self, record: RunRecord) -> SshEndpoint:
        raise NotUpError("not up")

    def connect(self, record: RunRecord) -> AbstractContextManager[Connection]:
        raise NotUpError("not up")

    def job_environment(self, record: RunRecord) -> Mapping[str, str]:
        return {}

    def release_nodes(self, record: RunRecord, report: Report) -> None:
        self._called("release_nodes")

    def collect(self, record: RunRecord) -> None:
        self._called("collect")

    def sweep(self, record: RunRecord, report: Report) -> None:
        self._called("sweep")

    def inventory(self, record: RunRecord) -> list[Check]:
        self._called("inventory")
        return [Check("the place", "what the run made", self.left)]


_SATISFIES: Callable[[], Target] = FakeTarget  # mypy holds the fake to the Protocol


class FakeEngine:
    """Takes calls, fails where it is told to."""

    def __init__(self, fails: Mapping[str, Exception] | None = None) -> None:
        self.fails = dict(fails or {})
        self.calls: list[str] = []

    def __getattr__(self, what: str) -> Callable[..., StackState]:
        if what not in ("destroy", "refresh"):
            raise AttributeError(what)

        def called(*between: object) -> StackState:
            self.calls.append(what)
            if what in self.fails:
                raise self.fails[what]
            return StackState()

        return called


def write_checkpoint(
    backend: Path, stack: str, resources: list[dict[str, Any]], pending: list[dict[str, Any]] | None = None
) -> Path:
    """A checkpoint as Pulumi's file backend writes it."""
    path = backend / ".pulumi" / "stacks" / "dhctl" / f"{stack}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    latest = {
        "manifest": {"time": "2026-07-01T10:00:00Z", "magic": "", "version": "v3.259.0"},
        "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:xyz"}},
        "resources": resources,
        "pending_operations": pending or [],
        "metadata": {},
    }
    checkpoint = {"version": 3, "checkpoint": {"stack": f"organization/dhctl/{stack}", "latest": latest}}
    path.write_text(json.dumps(checkpoint, indent=4))
    return path


def write_lock(backend: Path, stack: str, pid: int, host: str) -> Path:
    """A lock as Pulumi's file backend writes it."""
    folder = backend / ".pulumi" / "locks" / "organization" / "dhctl" / stack
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "0b1f6e8c-6d2c-4c2e-a1c8-0d4c6a1f7b11.json"
    path.write_text(json.dumps({"pid": pid, "username": "me", "hostname": host, "timestamp": "2026-07-01T10:00:00Z"}))
    return path


def resource(stack: str, kind: str, name: str) -> dict[str, Any]:
    """One resource of a checkpoint."""
    custom = kind != "pulumi:pulumi:Stack"
    return {"urn": f"urn:pulumi:{stack}::dhctl::{kind}::{name}", "custom": custom, "type": kind, "id": "x"}


def hold_lock(
    record: RunRecord, start: Callable[..., subprocess.Popen[bytes]], name: str = "lock"
) -> subprocess.Popen[bytes]:
    """Another process that holds a run. The same flock(2) as filelock takes, in a Python that starts quickly."""
    code = "import fcntl, signal, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    code += "; print('held', flush=True)"
    holder = start(
        *(sys.executable, "-IS", "-c", f"{code}; signal.pause()", str(record.folder / name)), stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    return holder


def script(path: Path, body: str) -> Path:
    """An executable Python script that starts quickly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{body}\n")
    path.chmod(0o755)
    return path
