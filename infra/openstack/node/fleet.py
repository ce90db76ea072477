"""The workers of a run as nova tells of them, asked every two seconds at most, and what is done about broken ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from dhctl.infra.openstack.mark import WORKER
from dhctl.infra.openstack.node.journal import NodeJournal
from dhctl.infra.openstack.node.launching import BackOff
from dhctl.infra.openstack.node.layout import NodeFolder, read_json
from dhctl.infra.openstack.node.servers import Compute, ComputeError, Server

FRESH_S = 2.0
BUILD_S = 900.0
"""A server that is not active after this long counts as failed."""

LISTED_S = 10.0
"""A server that nova took and does not list after this long is none."""


class Fleet:
    """Thread-safe. What was seen last is kept while nova cannot be asked: an API in trouble ends no worker."""

    def __init__(self, compute: Compute, folder: NodeFolder, journal: NodeJournal) -> None:
        self._compute, self._folder, self._journal = compute, folder, journal
        self._lock, self._look_lock = threading.RLock(), threading.Lock()
        self._known: dict[str, Server] = {}
        self._unlisted: dict[str, float] = {}
        self._looked_at: float | None = None
        self._to_end: dict[str, bool] = {}
        """Servers whose deletion is wanted, and whether they count as nodes until nova has taken it."""
        self._told: dict[str, str] = {}
        self.back_off = BackOff()

    def known(self) -> dict[str, Server]:
        """What was seen last; no call is made."""
        with self._lock:
            return dict(self._known)

    def workers(self, fresh: bool = False) -> list[str]:
        """Ids of living workers. Raises ComputeError when nova could never be asked yet.

        `fresh`: nova is asked anew, whatever was seen a moment ago.
        """
        with self._look_lock:
            if fresh or self._looked_at is None or time.monotonic() - self._looked_at > FRESH_S:
                self._look()
        return list(self.known())

    def _look(self) -> None:
        asked_at = time.monotonic()
        try:
            servers = {server.name: server for server in self._compute.servers() if server.role == WORKER}
        except ComputeError as error:
            if self._looked_at is None:
                raise
            self._looked_at = time.monotonic()
            self.tell_once("api", "list", f"servers cannot be listed, the last list counts: {error}")
            return
        self._looked_at = time.monotonic()
        living = {server.name: server for server in servers.values() if self._lives(server)}
        with self._lock:
            self._told.pop("list", None)
            self._unlisted = {
                name: at for name, at in self._unlisted.items() if name not in servers and at > asked_at - LISTED_S
            }
            lost = self._known.keys() - servers.keys() - self._unlisted.keys()
            self._known = {**living, **{name: self._known[name] for name in self._unlisted}}
            self._to_end = {name: counts for name, counts in self._to_end.items() if name in servers}
        for node_id in lost:
            self._journal.tell("left", node=node_id, reason="nova does not have it any more")

    def _lives(self, server: Server) -> bool:
        """Whether it counts as a node. A broken one is ended and named here."""
        if server.ending:
            return False
        if server.name in self._to_end:
            counts = self._to_end[server.name]
            return not self._delete(server) and counts
        problem = self._problem(server)
        if problem:
            self.failed(problem, server.name)
            with self._lock:
                self._to_end[server.name] = False
            self._delete(server)
            return False
        return True

    def _problem(self, server: Server) -> str:
        if server.status == "ERROR":
            return f"nova could not start a server: {self._fault(server)}"
        if server.status == "BUILD" and time.time() - server.created_at > BUILD_S:
            return f"a server is still being built after {BUILD_S / 60:.0f} minutes"
        report = read_json(self._folder.reports / f"{server.name}.json")
        if report.get("ready") and float(report["at"]) > self.back_off.failed_at:
            with self._lock:
                self.back_off.worked()
        return f"a worker cannot work: {report['reason']}" if report.get("reason") else ""

    def _fault(self, server: Server) -> str:
        try:
            return self._compute.fault(server.id) or "it gives no reason"
        except ComputeError as error:
            return f"its reason cannot be read ({error})"

    def end(self, node_ids: Iterable[str]) -> None:
        """Asks for the deletion of these; unknown ones are gone."""
        for node_id in node_ids:
            with self._lock:
                server = self._known.get(node_id)
                self._to_end[node_id] = True
            if server and self._delete(server):
                with self._lock:
                    self._known.pop(node_id, None)
                    self._unlisted.pop(node_id, None)
                self._journal.tell("left", node=node_id, reason="released")

    def _delete(self, server: Server) -> bool:
        """Whether nova took it. The journal tells each try; the worker's report goes with it."""
        ledger = self._journal.ledger
        ledger.note("node.leave", "intent", node=server.name, server=server.id)
        try:
            self._compute.delete(server.id)
        except ComputeError as error:
            ledger.note("node.leave", "failed", node=server.name, reason=str(error))
            self.tell_once("api", server.name, f"{server.name} cannot be deleted yet: {error}")
            return False
        ledger.note("node.leave", "done", node=server.name, server=server.id)
        (self._folder.reports / f"{server.name}.json").unlink(missing_ok=True)
        return True

    def launched(self, server: Server) -> None:
        """Nova took it: it counts from now on, listed or not."""
        with self._lock:
            self._known[server.name] = server
            self._unlisted[server.name] = time.monotonic()
            self._told.pop("refused", None)
        self._journal.tell("launched", node=server.name, server=server.id)

    def failed(self, reason: str, node_id: str = "") -> None:
        """A launch failed, or what was launched: the next one waits."""
        with self._lock:
            pause_s = self.back_off.failed(reason)
        self._journal.tell("failed", node=node_id, reason=reason, again_in_s=round(pause_s))

    def pause(self) -> str:
        """Why nothing may be launched now, and for how long; else empty."""
        with self._lock:
            left_s, reason = self.back_off.left_s, self.back_off.reason
        return f"{reason}; the next try is in {left_s:.0f} s" if left_s else ""

    def tell_once(self, kind: str, subject: str, reason: str) -> None:
        """One event, unless the last one about this subject said the same: Ray asks again each second."""
        with self._lock:
            if self._told.get(subject) == reason:
                return
            self._told[subject] = reason
        self._journal.tell(kind, reason=reason)
