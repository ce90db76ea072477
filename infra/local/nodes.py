"""Starting and stopping one Ray node of a local cluster as a supervised process tree."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import supervisor
from dhctl.infra.local.layout import RunFolder
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.processes import ProcessMark, boot_id, start_ticks, stop_all, wait_until
from dhctl.infra.ray_config import own_env

GRACE_S = 3.0
"""How long `ray start --block` may take to end its own children before the rest is killed."""

LEASE_MARGIN_S = 120.0
"""A supervisor ends its node this long after the lease, should nobody else have done it."""


@dataclass(frozen=True)
class ClusterSettings:
    """Everything that the processes of a local cluster need to know; no secret. Sizes in bytes, times in seconds."""

    run_id: str
    name: str
    ledger: str
    scratch: str
    expires_at: float
    min_workers: int
    max_workers: int
    worker_cpus: int
    worker_gpus: int
    worker_memory_bytes: int
    idle_timeout_s: float
    dashboard_port: int | None = None

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(Path(self.scratch), self.run_id)

    @property
    def ledger_path(self) -> Path:
        """The run's journal, to which every process of the cluster that makes something writes."""
        return Path(self.ledger)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; engines may have turned whole numbers into floats."""
        whole: dict[str, Any] = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in body.items()}
        return cls(**whole)


@dataclass(frozen=True)
class NodeRecord:
    """A node that was started: its supervisor, its address, its ports, and Ray's tags."""

    node_id: str
    process: ProcessMark
    address: str
    ports: Mapping[str, int]
    tags: Mapping[str, str]
    gpus: Sequence[int] = field(default=())

    def save(self, folder: RunFolder) -> None:
        """Writes the record whole or not at all."""
        temporary = folder.nodes / f".{self.node_id}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(folder.nodes / f"{self.node_id}.json")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a record. Raises OSError when it is gone."""
        body = json.loads(path.read_text())
        process = ProcessMark(**body.pop("process"))
        return cls(process=process, **body)


def load_nodes(folder: RunFolder) -> dict[str, NodeRecord]:
    """All recorded nodes by id."""
    found = {}
    for path in folder.nodes.glob("[!.]*.json"):
        try:
            found[path.stem] = NodeRecord.load(path)
        except FileNotFoundError:
            continue  # terminated while we looked
    return found


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """One free TCP port for each name. Somebody may take one before it is used: starters try again."""
    sockets = {name: socket.socket() for name in names}
    try:
        for opened in sockets.values():
            opened.bind(("", 0))
        return {name: opened.getsockname()[1] for name, opened in sockets.items()}
    finally:
        for opened in sockets.values():
            opened.close()


AGENT_PORTS = {
    "dashboard_agent": "--dashboard-agent-listen-port",
    "dashboard_agent_grpc": "--dashboard-agent-grpc-port",
    "runtime_env_agent": "--runtime-env-agent-port",
    "metrics": "--metrics-export-port",
    "raylet": "--node-manager-port",
    "object_manager": "--object-manager-port",
}
"""Ports that must be given: a raylet waits at most 15 s for agents that choose their own (ray#65983)."""


def ray_command(settings: ClusterSettings, node_id: str, address: str, ports: Mapping[str, int]) -> list[str]:
    """`ray start --block` with what every node of a local cluster has in common."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", address, "--temp-dir", str(settings.folder.ray_temp(node_id))]
    command += ["--min-worker-port", "0", "--max-worker-port", "0"]
    for name, option in AGENT_PORTS.items():
        command += [option, str(ports[name])]
    return command


PORT_FILES = {
    "dashboard_agent_listen_port": "dashboard_agent",
    "metrics_agent_port": "dashboard_agent_grpc",
    "metrics_export_port": "metrics",
    "runtime_env_agent_port": "runtime_env_agent",
}
"""Files by which a raylet learns its agents' ports. It waits 15 s for them, whatever it was told (ray#65983)."""


def announce_ports(session: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Writes a joining node's port files ahead of its agents, so that a busy machine does not cost it its life.

    `session` is the node's own session folder. The environment by which the node takes the id that the files name.
    """
    ray_id = secrets.token_hex(28)
    session.mkdir(parents=True)
    for file, name in PORT_FILES.items():
        (session / f"{file}_{ray_id}").write_text(str(ports[name]))
    return {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": ray_id, "RAY_agent_register_timeout_ms": "180000"}


def node_environment(settings: ClusterSettings, node_id: str, kind: str) -> dict[str, str]:
    """The user's environment without its own Ray settings, with the mark, the token's file and Ray's node identity."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PULUMI_"))}
    return {
        **inherited,
        RUN_ENV: settings.run_id,
        "TMPDIR": str(settings.folder.temp),
        # a job's `python` is the one dhctl runs in, whether or not its virtual environment is active in this shell
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]),
        **own_env(settings.folder.token, node_id, kind),
    }


def spawn(
    settings: ClusterSettings, node_id: str, command: Sequence[str], env: Mapping[str, str], *, restart: bool = False
) -> ProcessMark:
    """Starts a supervisor with `command` in a session of its own; its output goes to logs/<node id>.log."""
    supervised = [sys.executable, "-I", "-S", supervisor.__file__, "--run", settings.run_id, "--node", node_id]
    supervised += ["--grace", str(GRACE_S), "--until", str(settings.expires_at + LEASE_MARGIN_S)]
    supervised += ["--restart"] * restart + ["--", *command]
    with (settings.folder.logs / f"{node_id}.log").open("ab") as log:
        started = subprocess.Popen(
            supervised, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    mark = ProcessMark.of(started.pid)
    if mark is None:
        raise ChildProcessError(f"the supervisor of {node_id} ended at once; see {settings.folder.logs}/{node_id}.log")
    return mark


def supervisors(run_id: str) -> Iterator[tuple[int, str]]:
    """Pid and node id of every living supervisor of this run, found by its command line."""
    for pid in supervisor.process_table():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if len(arguments) > 8 and arguments[3].endswith("supervisor.py") and arguments[4:6] == ["--run", run_id]:
            yield pid, arguments[7]


def stop_nodes(records: Sequence[NodeRecord], ledger: Ledger) -> None:
    """Stops nodes side by side; returns when nothing of their process trees lives. Raises TimeoutError if some do."""
    if not records:
        return
    ids = [r.node_id for r in records]
    with ledger.ending("nodes.stop", nodes=ids):
        stop_all((r.process for r in records), grace_s=GRACE_S + 2)
        for record in records:
            kill_tree(record.process)


def session_of(process: ProcessMark) -> set[int]:
    """Pids of a supervisor's session and descendants, also when it is dead itself.

    Empty when another process has its pid now: the kernel gives no number out again that a session still bears.
    """
    taken = start_ticks(process.pid) not in (None, process.ticks)
    return set() if taken or process.boot != boot_id() else supervisor.members(process.pid)


def kill_tree(process: ProcessMark) -> None:
    """Kills what is left of a supervisor's session after it ended. Raises TimeoutError when something will not die."""

    def gone() -> bool:
        marks = [m for m in map(ProcessMark.of, session_of(process)) if m]
        for mark in marks:
            mark.signal(9)
        return not marks

    if not wait_until(gone, 10):
        raise TimeoutError(f"processes of session {process.pid} do not die")
