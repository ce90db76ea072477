"""Ray's node on a worker, kept by the agent until it has joined. Standard library only."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from dhctl.infra import ray_config
from dhctl.infra.node.layout import AGENT_PORTS, GCS_PORT, write_json
from dhctl.infra.node.ray_head import AFTER_LEASE_S, PAUSES_S, START_S, tail
from dhctl.infra.node.watched import RAY_KILL_S, spawn, stop, supervised
from dhctl.infra.openstack.node.site import ServerSite

TRIES = 5
"""Starts before it gives up: a head that starts again takes a while."""


class RayWorker:
    """States: starting, ready, ended, failed."""

    def __init__(self, site: ServerSite) -> None:
        self._site = site
        self._ray: subprocess.Popen[bytes] | None = None
        self._state, self._deadline, self._due, self._failures = "starting", 0.0, 0.0, 0

    def keep(self) -> None:
        """One look."""
        if self._state in ("ended", "failed"):
            return
        if self._ray is None:
            if time.monotonic() >= self._due:
                self._start()
        elif self._ray.poll() is not None:
            self._died(f"Ray's node ended with status {self._ray.returncode}")
        elif self._state == "starting":
            self._look_at_start()

    def end(self) -> None:
        """Stops it."""
        if self._ray:
            stop(self._ray, RAY_KILL_S)

    def _start(self) -> None:
        site, settings = self._site, self._site.settings
        command = [*site.ray_command(), "--address", f"{settings.head_address}:{GCS_PORT}", *settings.ray_options]
        env = site.ray_env(settings.node_id, ray_config.WORKER_KIND)
        words = supervised(command, settings.node_id, settings.run_id, settings.expires_at + AFTER_LEASE_S)
        self._ray = spawn(words, env, site.log("ray"))
        self._deadline = time.monotonic() + START_S
        self._tell("starting")

    def _look_at_start(self) -> None:
        if self._joined():
            self._tell("ready")
        elif time.monotonic() > self._deadline and self._ray:
            stop(self._ray, RAY_KILL_S)
            self._died(f"Ray's node did not join within {START_S:.0f} s")

    def _joined(self) -> bool:
        """The node's agent answers for its raylet, which is in the head's list then."""
        port = AGENT_PORTS["--dashboard-agent-listen-port"]
        return self._site.answers(f"http://{self._site.address}:{port}/api/local_raylet_healthz")

    def _died(self, reason: str) -> None:
        self._ray = None
        if self._state == "ready":
            self._tell("ended", reason=reason)
            return
        self._due = time.monotonic() + PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        if self._failures >= TRIES:
            self._tell("failed", reason=f"{reason}, {TRIES} times", log=tail(self._site.log("ray")))

    def _tell(self, state: str, **detail: Any) -> None:
        self._state = state
        body = {"state": state, "pid": os.getpid(), "address": self._site.address, **detail}
        write_json(self._site.folder.agent, body, 0o644)
