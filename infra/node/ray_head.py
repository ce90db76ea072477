"""Ray's head and its autoscaler, kept running by the agent. Standard library only."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dhctl.infra import ray_config
from dhctl.infra.node.layout import CLIENT_PORT, DASHBOARD_PORT, GCS_PORT, RAYLET_PORT, write_json
from dhctl.infra.node.site import KNOCK_S, NodeSite
from dhctl.infra.node.stop import start_ticks
from dhctl.infra.node.watched import RAY_GRACE_S, RAY_KILL_S, STOP_S, Watched, spawn, stop, supervised

START_S = 180.0
TRIES = 3
"""Starts that may fail before the first one that answers. After that one, it is tried for ever."""

PAUSES_S = (0.0, 2.0, 5.0, 15.0, 30.0)
AFTER_LEASE_S = 120.0
"""Ray's processes end this long after the lease even where no server can be deleted."""

LEAST_STORE_BYTES, MOST_STORE_BYTES = 100 * 2**20, 2 * 2**30
ALLOCATE_S = 2400
"""How long a server may take until its Ray has joined: a boot that installs Ray needs its time."""


class RayHead:
    """States: starting, ready, failed. The file agent.json tells which, with the id of the head for Ray.

    `provider` names the class that makes workers (`module`, dotted) and what it needs beside the node's folder and
    the head's id and address; `pace` is the autoscaler's environment beside it, where Ray's own pace is not the site's.
    """

    def __init__(
        self,
        site: NodeSite,
        provider: Mapping[str, Any],
        grace_s: float = RAY_GRACE_S,
        pace: Mapping[str, str] | None = None,
    ) -> None:
        self._site, self._provider, self._grace_s = site, dict(provider), grace_s
        self._pace = dict(pace or {})
        self._head_id = ""
        self._ray: subprocess.Popen[bytes] | None = None
        self._monitor: Watched | None = None
        self._state, self._deadline, self._due, self._failures = "starting", 0.0, 0.0, 0
        self._was_ready = False

    def keep(self) -> None:
        """One look."""
        if self._site.folder.stopping.exists():
            self._end_monitor()
        if self._ray is None:
            self._start_when_due()
        elif self._ray.poll() is not None:
            self._died(f"Ray's head ended with status {self._ray.returncode}")
        elif self._state == "starting":
            self._look_at_start()
        elif self._monitor and self._monitor.keep():
            self._tell("ready")

    def end(self) -> None:
        """Autoscaler first. Where that was told to stop for good the logs are saved, and Ray need not end by itself."""
        self._end_monitor()
        if self._ray:
            at_once = self._site.folder.stopping.exists()
            stop(self._ray, RAY_KILL_S, signal.SIGINT if at_once else signal.SIGTERM)

    def _start_when_due(self) -> None:
        site = self._site
        if time.monotonic() < self._due or self._state == "failed" or time.time() > site.settings.expires_at:
            return
        # else a start beside living workers says "already running"
        (site.folder.ray_temp / "ray_current_cluster").unlink(missing_ok=True)
        self._head_id = f"{site.settings.node_id}-{secrets.token_hex(3)}"  # never used again, as autoscaler v2 wants
        env = {
            **site.ray_env(self._head_id, ray_config.HEAD_KIND),
            **ray_config.head_env(site.settings),
            **_tables(site),
        }
        command = [*site.ray_command(), "--head", "--no-monitor", "--port", str(GCS_PORT)]
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(DASHBOARD_PORT)]
        command += ["--ray-client-server-port", str(CLIENT_PORT), "--num-cpus", "0", "--num-gpus", "0"]
        command += ["--object-store-memory", str(object_store_bytes(site.memory_bytes))]
        until = site.settings.expires_at + AFTER_LEASE_S
        words = supervised(command, self._head_id, site.settings.run_id, until, self._grace_s)
        self._ray = spawn(words, env, site.log("ray"))
        self._state, self._deadline = "starting", time.monotonic() + START_S
        self._tell("starting")

    def _look_at_start(self) -> None:
        if _accepts(self._site.address, RAYLET_PORT) and self._dashboard_answers():
            if self._was_ready:
                self._site.journal.tell("ray", reason="Ray's head runs again", node=self._head_id)
            self._state, self._was_ready, self._failures = "ready", True, 0
            self._start_monitor()
            self._tell("ready")
        elif time.monotonic() > self._deadline and self._ray:
            stop(self._ray, RAY_KILL_S)
            self._died(f"Ray's head did not answer within {START_S:.0f} s")

    def _died(self, reason: str) -> None:
        """A new one is started after a pause; before the first that answered only a few times."""
        self._end_monitor()
        self._site.journal.tell("ray", reason=reason, node=self._head_id)
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        self._ray, self._due, self._state = None, time.monotonic() + pause_s, "starting"
        if not self._was_ready and self._failures >= TRIES:
            self._state = "failed"
            self._tell("failed", reason=f"{reason}, {TRIES} times", log=tail(self._site.log("ray")))

    def _start_monitor(self) -> None:
        """Outside `ray start`, because there a dead autoscaler takes the head along."""
        site = self._site
        if site.folder.stopping.exists():
            return
        provider = {
            **self._provider,
            "home": str(site.folder.path),
            "head_id": self._head_id,
            "head_address": site.address,
        }
        config = json.dumps(ray_config.autoscaling_config(site.settings, provider))
        site.folder.autoscaling.write_text(config)
        session = (site.folder.ray_temp / "session_latest").resolve()
        command = [*site.python_module("dhctl.infra.node.autoscaler"), "--monitor-ip", site.address]
        command += ["--gcs-address", f"{site.address}:{GCS_PORT}", "--logs-dir", str(session / "logs")]
        command += ["--autoscaling-config", str(site.folder.autoscaling)]
        env = {**site.ray_env(self._head_id, ray_config.HEAD_KIND), "PYTHONPATH": site.python_path}
        env |= {"RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S": str(ALLOCATE_S), **self._pace}
        self._monitor = Watched(command, env, site.log("autoscaler"))
        self._monitor.keep()

    def _end_monitor(self) -> None:
        if self._monitor and self._monitor.process:
            stop(self._monitor.process, STOP_S)
            self._monitor = None
            self._tell(self._state)

    def _dashboard_answers(self) -> bool:
        return self._site.answers(f"http://127.0.0.1:{DASHBOARD_PORT}/api/version")

    def _tell(self, state: str, **detail: Any) -> None:
        process = self._monitor.process if self._monitor else None
        monitor = {"pid": process.pid, "ticks": start_ticks(process.pid)} if process else None
        body = {"state": state, "pid": os.getpid(), "head_id": self._head_id, "monitor": monitor, **detail}
        write_json(self._site.folder.agent, {**body, "address": self._site.address}, 0o644)


def _tables(site: NodeSite) -> dict[str, str]:
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(site.folder.gcs)}


def _accepts(address: str, port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(KNOCK_S)
        return caller.connect_ex((address, port)) == 0


def object_store_bytes(memory: int) -> int:
    """A tenth of the memory: no task runs on a head, but drivers put their data there."""
    shared = shutil.disk_usage("/dev/shm").free
    return max(LEAST_STORE_BYTES, min(memory // 10, shared // 2, MOST_STORE_BYTES))


def tail(path: Path, characters: int = 3000) -> str:
    """The end of a log."""
    try:
        return path.read_text(errors="replace")[-characters:]
    except OSError:
        return ""
