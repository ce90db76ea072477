"""The last defence of the lease, on every node: when the run's time is over it deletes the run's servers, its own last.

The head goes first, a minute after the lease; workers, a minute and a half later, do it when there is no head that did.
Only servers whose metadata carries the run's mark are deleted. It tries again until nothing is left, and the last thing
that goes is the server on which it runs.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.servers import Compute, ComputeError, Server
from dhctl.infra.openstack.node.settings import HEAD, NodeSettings

HEAD_MARGIN_S, WORKER_MARGIN_S = 60.0, 150.0
LOOK_AT_CLOCK_S = 10.0
"""The clock is looked at again and again: one long sleep would not see that a machine was suspended."""

ROUND_S = 5.0
OTHER_GUARDS = 3
"""Exit status of a guard beside another one, which outlived its agent."""

PATIENCE_S = 600.0
"""How long other servers may take to be gone, before this node ends itself all the same: others guard too."""


class LeaseGuard:
    """Waits for the end of the lease, then ends the run's servers."""

    def __init__(
        self,
        settings: NodeSettings,
        journal: NodeJournal,
        compute_of: Callable[[], Compute],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._journal, self._compute_of, self._sleep = settings, journal, compute_of, sleep

    @property
    def due_at(self) -> float:
        """When this node acts, in epoch seconds."""
        margin = HEAD_MARGIN_S if self._settings.role == HEAD else WORKER_MARGIN_S
        return self._settings.expires_at + margin

    def wait(self) -> None:
        """Returns when the time has come."""
        while (left := self.due_at - time.time()) > 0:
            self._sleep(min(left, LOOK_AT_CLOCK_S))

    def end_run(self) -> None:
        """Deletes until nothing is left, this server last: it hardly ever returns."""
        self._journal.tell("lease", reason="the lease is over; the servers of the run are deleted")
        self._journal.ledger.note("lease.end", "intent", node=self._settings.node_id)
        began = time.monotonic()
        while True:
            try:
                if self._round(patient=time.monotonic() - began < PATIENCE_S):
                    self._journal.ledger.note("lease.end", "done", node=self._settings.node_id)
                    return
            except ComputeError as error:
                self._journal.tell("lease", reason=f"the servers cannot be listed yet: {error}")
            self._sleep(ROUND_S)

    def _round(self, patient: bool) -> bool:
        """One look and the deletions it calls for; whether nothing was left. Raises ComputeError."""
        compute = self._compute_of()
        servers = compute.servers()
        others = [server for server in servers if server.name != self._settings.node_id]
        for server in others:
            self._delete(compute, server)
        if others and patient:
            return False
        for server in servers:
            if server.name == self._settings.node_id:
                self._delete(compute, server)
        return not servers

    def _delete(self, compute: Compute, server: Server) -> None:
        """One that cannot be deleted now does not keep the others alive."""
        if server.ending:
            return
        try:
            with self._journal.ledger.ending("lease.delete", node=server.name, server=server.id):
                compute.delete(server.id)
        except ComputeError as error:
            self._journal.tell("lease", node=server.name, reason=f"{server.name} cannot be deleted yet: {error}")


def only_one(path: Path) -> bool:
    """Whether this process is the only guard of the node; it stays so until it ends."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    return True


def main() -> int:
    """Entry point. The libraries for the cloud's API are loaded when they are needed: this process mostly sleeps."""
    folder = ServerFolder.here()
    settings = NodeSettings.from_dict(read_json(folder.settings))
    if not only_one(folder.path / "lease.lock"):
        return OTHER_GUARDS

    def compute() -> Compute:
        from dhctl.infra.openstack.node.compute import NovaCompute

        return NovaCompute.here(folder, settings.run_id)

    guard = LeaseGuard(settings, NodeJournal(folder), compute)
    guard.wait()
    guard.end_run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
