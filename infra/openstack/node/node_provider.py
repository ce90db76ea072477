"""The workers of a run on OpenStack for Ray's autoscaler: servers, each of which enrols at the head with a nonce."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException

from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json
from dhctl.infra.node.worker_provider import WorkerProvider
from dhctl.infra.openstack.mark import WORKER
from dhctl.infra.openstack.node import enrolment
from dhctl.infra.openstack.node.compute import NovaCompute
from dhctl.infra.openstack.node.fleet import ServerFleet
from dhctl.infra.openstack.node.launching import server_body
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.servers import ComputeError, Server
from dhctl.infra.openstack.node.settings import NodeSettings


class OpenStackNodeProvider(WorkerProvider[Server]):
    """0..N servers of one run. Thread-safe."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        self._folder = ServerFolder(Path(provider_config["home"]))
        self._settings = NodeSettings.from_dict(read_json(self._folder.settings))
        self._journal = NodeJournal(self._folder)
        self._compute = NovaCompute.here(self._folder, self._settings.run_id)
        fleet = ServerFleet(self._compute, self._folder, self._journal)
        super().__init__(provider_config, cluster_name, self._settings, self._folder, fleet)

    def _create(self, node_id: str, launch: str, options: list[str]) -> None:
        self._require_quota()
        ledger = self._journal.ledger
        nonce = enrolment.allow(self._folder, node_id)
        worker = self._settings.for_worker(node_id, self._head_address, nonce, options)
        ledger.intent("node.start", node=node_id)
        try:
            server_id = self._compute.create(server_body(worker, launch))
        except ComputeError as error:
            ledger.note("node.start", "failed", node=node_id, reason=str(error))
            self._fleet.failed(f"nova refuses a server: {error}")
            raise NodeLaunchException("LaunchFailed", str(error), None) from error
        ledger.note("node.start", "done", node=node_id, server=server_id)
        self._fleet.launched(Server(server_id, node_id, WORKER, "BUILD", time.time(), launch=launch))

    def _require_quota(self) -> None:
        """A quota that cannot be read is no reason to wait: nova says what it thinks of the server."""
        try:
            problem = self._compute.launch_problem(self._settings.flavor_vcpus, self._settings.flavor_ram_mib)
        except ComputeError as error:
            self._fleet.tell_once("api", "quota", f"the quota cannot be read: {error}")
            return
        if problem:
            self._fleet.failed(problem)
            raise NodeLaunchException("QuotaExceeded", problem, None)
