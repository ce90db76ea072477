"""The workers of a run as nova tells of them."""

from __future__ import annotations

import time
from typing import ClassVar

from dhctl.infra.node.fleet import Fleet
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json
from dhctl.infra.openstack.mark import WORKER
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.servers import Compute, ComputeError, Server

BUILD_S = 900.0
"""A server that is not active after this long counts as failed."""


class ServerFleet(Fleet[Server]):
    """Servers of the role worker."""

    API: ClassVar[str] = "nova"
    KIND: ClassVar[str] = "server"

    def __init__(self, compute: Compute, folder: ServerFolder, journal: NodeJournal) -> None:
        super().__init__(journal)
        self._compute, self._folder = compute, folder

    def _list(self) -> list[Server]:
        return [server for server in self._compute.servers() if server.role == WORKER]

    def _ask_deletion(self, worker: Server) -> None:
        self._compute.delete(worker.id)

    def _problem(self, worker: Server) -> str:
        if worker.status == "ERROR":
            return f"nova could not start a server: {self._fault(worker)}"
        if worker.status == "BUILD" and time.time() - worker.created_at > BUILD_S:
            return f"a server is still being built after {BUILD_S / 60:.0f} minutes"
        report = read_json(self._folder.reports / f"{worker.name}.json")
        if report.get("ready") and float(report["at"]) > self.back_off.failed_at:
            with self._lock:
                self.back_off.worked()
        return f"a worker cannot work: {report['reason']}" if report.get("reason") else ""

    def _fault(self, worker: Server) -> str:
        try:
            return self._compute.fault(worker.id) or "it gives no reason"
        except ComputeError as error:
            return f"its reason cannot be read ({error})"

    def _forget(self, worker: Server) -> None:
        """The worker's report goes with it."""
        (self._folder.reports / f"{worker.name}.json").unlink(missing_ok=True)
