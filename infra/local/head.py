"""The head node of a local cluster: Ray's head and, beside it, the autoscaler."""

from __future__ import annotations

import hashlib
import json
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dhctl.infra import ray_config
from dhctl.infra.errors import ClusterError
from dhctl.infra.ledger import Ledger
from dhctl.infra.local import nodes
from dhctl.infra.local.nodes import ClusterSettings, NodeRecord
from dhctl.infra.processes import ProcessMark, listeners, stop_all
from dhctl.infra.ray_api import Connection, dashboard_answers
from dhctl.infra.ray_config import HEAD_KIND

PROVIDER = "dhctl.infra.local.node_provider.LocalNodeProvider"

START_TIMEOUT_S = 90.0
START_TRIES = 3
HEAD_OBJECT_STORE_BYTES = 100 * 2**20
HEAD_PORTS = ("gcs", "dashboard", "ray_client", "autoscaler_metrics", "dashboard_metrics", *nodes.AGENT_PORTS)


@dataclass(frozen=True)
class Head:
    """A head that answers."""

    node_id: str
    address: str
    ports: Mapping[str, int]

    def connection(self, token_file: Path) -> Connection:
        """How to reach it from this machine. Raises OSError when the token is gone."""
        return Connection(
            dashboard_url=f"http://127.0.0.1:{self.ports['dashboard']}",
            gcs_address=f"{self.address}:{self.ports['gcs']}",
            raylet_address=f"{self.address}:{self.ports['raylet']}",
            token=token_file.read_text().strip(),
            head_address=self.address,
            token_file=str(token_file),
        )


def subnet_of(run_id: str) -> str:
    """The run's own 256 loopback addresses, `127.x.y.`, chosen by its id; x from 16 to 249 keeps clear of others."""
    digest = hashlib.sha256(run_id.encode()).digest()
    return f"127.{16 + digest[0] % 234}.{digest[1]}."


def start_head(settings: ClusterSettings) -> Head:
    """Starts the head and the autoscaler and returns when Ray answers with the token.

    Raises ClusterError with the log's end when it does not come up. What was started is in the ledger before it runs.
    """
    folder, ledger = settings.folder, Ledger(settings.ledger_path)
    folder.settings.write_text(json.dumps(settings.to_dict()))
    for attempt in range(1, START_TRIES + 1):
        head, process = _start_ray(settings, ledger)
        if _wait_for_answer(head, process, folder.token):
            break
        stop_all([process], nodes.GRACE_S + 2)
        nodes.kill_tree(process)
        ledger.note("head.start", "failed", node=head.node_id, attempt=attempt)
        if attempt == START_TRIES:
            raise ClusterError("Ray's head did not come up", f"its log ends: {_tail(settings, head.node_id)}")
    _start_autoscaler(settings, head, ledger)
    return head


def _start_ray(settings: ClusterSettings, ledger: Ledger) -> tuple[Head, ProcessMark]:
    node_id = f"head-{secrets.token_hex(3)}"  # new at each start: autoscaler v2 wants ids never used again
    address = subnet_of(settings.run_id) + "2"
    ports = nodes.free_ports(HEAD_PORTS)
    if settings.dashboard_port:
        require_free(settings.dashboard_port)
        ports["dashboard"] = settings.dashboard_port
    head = Head(node_id, address, ports)
    settings.folder.ray_temp(node_id).mkdir(exist_ok=True)
    ledger.intent("head.start", node=node_id, address=address, ports=ports)
    env = nodes.node_environment(settings, node_id, HEAD_KIND) | ray_config.head_env(settings)
    env |= {"AUTOSCALER_METRIC_PORT": str(ports["autoscaler_metrics"])}
    env |= {"DASHBOARD_METRIC_PORT": str(ports["dashboard_metrics"])}
    command = nodes.ray_command(settings, node_id, address, ports)
    command += ["--head", "--no-monitor", "--port", str(ports["gcs"])]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports["dashboard"])]
    command += ["--ray-client-server-port", str(ports["ray_client"])]
    command += ["--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", str(HEAD_OBJECT_STORE_BYTES)]
    process = nodes.spawn(settings, node_id, command, env)
    tags = {"ray-node-type": "head", "ray-user-node-type": HEAD_KIND, "ray-node-status": "up-to-date"}
    NodeRecord(node_id, process, address, ports, {**tags, "ray-node-name": node_id}).save(settings.folder)
    ledger.done("head.start", node=node_id, process=process.to_dict())
    return head, process


def require_free(port: int) -> None:
    """Raises ClusterError, naming the holder where it can be seen, when somebody listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} is taken{_holder(port)}", "set local.dashboard_port to a free one, or leave it out"
            ) from error


def _holder(port: int) -> str:
    for found in listeners():
        if found.port == port and found.pid:
            return f" by {psutil.Process(found.pid).name()} (pid {found.pid})"
    return ""


def _wait_for_answer(head: Head, process: ProcessMark, token_file: Path) -> bool:
    """The dashboard may answer before the raylet, and a raylet on a busy machine may still die of waiting."""
    connection, end = head.connection(token_file), time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.alive():
        if dashboard_answers(connection) and _accepts(head.address, head.ports["raylet"]):
            return True
        time.sleep(0.1)
    return False


def _accepts(address: str, port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex((address, port)) == 0


def _tail(settings: ClusterSettings, node_id: str, lines: int = 8) -> str:
    text = (settings.folder.logs / f"{node_id}.log").read_text(errors="replace")
    return " / ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def _start_autoscaler(settings: ClusterSettings, head: Head, ledger: Ledger) -> None:
    """Outside `ray start`, because there a dead autoscaler takes the head along; its supervisor starts it again."""
    config = settings.folder.path / "autoscaling.json"
    session = (settings.folder.ray_temp(head.node_id) / "session_latest").resolve()
    config.write_text(json.dumps(autoscaling_config(settings, head, session.name)))
    node_id = "autoscaler"
    env = nodes.node_environment(settings, head.node_id, HEAD_KIND)
    env |= {"AUTOSCALER_METRIC_PORT": str(head.ports["autoscaler_metrics"])}
    command = [sys.executable, "-u", "-m", "dhctl.infra.node.autoscaler", "--monitor-ip", head.address]
    command += ["--gcs-address", f"{head.address}:{head.ports['gcs']}", "--logs-dir", str(session / "logs")]
    command += ["--autoscaling-config", str(config)]
    with ledger.act("autoscaler.start") as outcome:
        process = nodes.spawn(settings, node_id, command, env, restart=True)
        outcome["process"] = process.to_dict()
        (settings.folder.path / "autoscaler.json").write_text(json.dumps(process.to_dict()))


def stop_autoscaler(settings: ClusterSettings) -> None:
    """Ends the autoscaler, so that nothing new starts. Does nothing when it is not there."""
    path = settings.folder.path / "autoscaler.json"
    if not path.exists():
        return
    process = ProcessMark.from_dict(json.loads(path.read_text()))
    if process:
        with Ledger(settings.ledger_path).ending("autoscaler.stop"):
            stop_all([process], grace_s=3)
            nodes.kill_tree(process)
    path.unlink()


def begin_stop(settings: ClusterSettings) -> None:
    """Ends the autoscaler and asks all nodes to stop, workers and head side by side, without waiting for them.

    A head that stops first costs each worker seconds of waiting for it, and all of it goes on while Pulumi starts.
    """
    stop_autoscaler(settings)
    for record in nodes.load_nodes(settings.folder).values():
        record.process.signal(signal.SIGTERM)


def stop_head(settings: ClusterSettings) -> None:
    """Ends autoscaler, workers that are left, and head. Does nothing for what is not there."""
    stop_autoscaler(settings)
    records = nodes.load_nodes(settings.folder)
    nodes.stop_nodes(list(records.values()), Ledger(settings.ledger_path))
    for node_id in records:
        (settings.folder.nodes / f"{node_id}.json").unlink(missing_ok=True)


def head_alive(settings: ClusterSettings) -> bool:
    """Whether the recorded head's supervisor lives."""
    records = nodes.load_nodes(settings.folder).values()
    return any(r.process.alive() for r in records if r.tags["ray-node-type"] == "head")


def autoscaling_config(settings: ClusterSettings, head: Head, session: str) -> dict[str, Any]:
    """Ray's cluster configuration, with this target's provider."""
    provider = {
        "module": PROVIDER,
        "settings": str(settings.folder.settings),
        "gcs_address": f"{head.address}:{head.ports['gcs']}",
        "session": session,
    }
    return ray_config.autoscaling_config(settings, provider)
