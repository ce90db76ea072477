"""The workers of a run as the API tells of them, asked every two seconds at most, and what is done about broken ones.

Standard library only.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, Protocol, TypeVar

from dhctl.infra.node.back_off import BackOff
from dhctl.infra.node.journal import NodeJournal

FRESH_S = 2.0
LISTED_S = 10.0
"""A worker that the API took and does not list after this long is none."""


class WorkerApiError(Exception):
    """The API refused, failed or did not answer; `status` is the HTTP status, 0 where there was none."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Worker(Protocol):
    """What a worker is at the site: a server, a pod."""

    @property
    def id(self) -> str:
        """The site's id; never used again."""

    @property
    def name(self) -> str:
        """The node's id for Ray; never used again."""

    @property
    def ending(self) -> bool:
        """Whether its deletion is under way."""

    @property
    def up(self) -> bool:
        """Whether it runs, with Ray or still without."""

    @property
    def address(self) -> str:
        """Among the cluster's nodes; empty while it has none."""

    @property
    def launch(self) -> str:
        """Which request of the autoscaler it answers."""


W = TypeVar("W", bound=Worker)


class Fleet(ABC, Generic[W]):
    """Thread-safe. What was seen last is kept while the API cannot be asked: an API in trouble ends no worker."""

    API: ClassVar[str]
    """Who is asked, in sentences."""
    KIND: ClassVar[str]
    """What a worker is there, in sentences."""

    def __init__(self, journal: NodeJournal) -> None:
        self._journal = journal
        self._lock, self._look_lock = threading.RLock(), threading.Lock()
        self._known: dict[str, W] = {}
        self._unlisted: dict[str, float] = {}
        self._looked_at: float | None = None
        self._to_end: dict[str, bool] = {}
        """Workers whose deletion is wanted, and whether they count as nodes until the API has taken it."""
        self._told: dict[str, str] = {}
        self.back_off = BackOff()

    @abstractmethod
    def _list(self) -> Iterable[W]:
        """All workers of the run, broken ones too. Raises WorkerApiError."""

    @abstractmethod
    def _ask_deletion(self, worker: W) -> None:
        """Silent when it is gone. Raises WorkerApiError."""

    @abstractmethod
    def _problem(self, worker: W) -> str:
        """Why this one is no use any more; empty while it is. Looks only at what was listed, unless it is broken."""

    def _forget(self, worker: W) -> None:
        """Its deletion was taken: what was kept of it may go."""

    def known(self) -> dict[str, W]:
        """What was seen last; no call is made."""
        with self._lock:
            return dict(self._known)

    def workers(self, fresh: bool = False) -> list[str]:
        """Ids of living workers. Raises WorkerApiError when the API could never be asked yet.

        `fresh`: it is asked anew, whatever was seen a moment ago.
        """
        with self._look_lock:
            if fresh or self._looked_at is None or time.monotonic() - self._looked_at > FRESH_S:
                self._look()
        return list(self.known())

    def _look(self) -> None:
        asked_at = time.monotonic()
        try:
            listed = {worker.name: worker for worker in self._list()}
        except WorkerApiError as error:
            if self._looked_at is None:
                raise
            self._looked_at = time.monotonic()
            self.tell_once("api", "list", f"{self.KIND}s cannot be listed, the last list counts: {error}")
            return
        self._looked_at = time.monotonic()
        living = {worker.name: worker for worker in listed.values() if self._lives(worker)}
        with self._lock:
            self._told.pop("list", None)
            self._unlisted = {
                name: at for name, at in self._unlisted.items() if name not in listed and at > asked_at - LISTED_S
            }
            lost = self._known.keys() - listed.keys() - self._unlisted.keys()
            self._known = {**living, **{name: self._known[name] for name in self._unlisted}}
            self._to_end = {name: counts for name, counts in self._to_end.items() if name in listed}
        for node_id in lost:
            self._journal.tell("left", node=node_id, reason=f"{self.API} does not have it any more")

    def _lives(self, worker: W) -> bool:
        """Whether it counts as a node. A broken one is ended and named here."""
        if worker.ending:
            return False
        if worker.name in self._to_end:
            counts = self._to_end[worker.name]
            return not self._delete(worker) and counts
        problem = self._problem(worker)
        if problem:
            self._give_up(worker, problem)
            with self._lock:
                self._to_end[worker.name] = False
            self._delete(worker)
            return False
        return True

    def _give_up(self, worker: W, problem: str) -> None:
        """Names a broken one."""
        self.failed(problem, worker.name)

    def end(self, node_ids: Iterable[str]) -> None:
        """Asks for the deletion of these; unknown ones are gone."""
        for node_id in node_ids:
            with self._lock:
                worker = self._known.get(node_id)
                self._to_end[node_id] = True
            if worker and self._delete(worker):
                with self._lock:
                    self._known.pop(node_id, None)
                    self._unlisted.pop(node_id, None)
                self._journal.tell("left", node=node_id, reason="released")

    def _delete(self, worker: W) -> bool:
        """Whether the API took it. The journal tells each try."""
        ledger, named = self._journal.ledger, {self.KIND: worker.id}
        ledger.note("node.leave", "intent", node=worker.name, **named)
        try:
            self._ask_deletion(worker)
        except WorkerApiError as error:
            ledger.note("node.leave", "failed", node=worker.name, reason=str(error))
            self.tell_once("api", worker.name, f"{worker.name} cannot be deleted yet: {error}")
            return False
        ledger.note("node.leave", "done", node=worker.name, **named)
        self._forget(worker)
        return True

    def launched(self, worker: W) -> None:
        """The API took it: it counts from now on, listed or not."""
        with self._lock:
            self._known[worker.name] = worker
            self._unlisted[worker.name] = time.monotonic()
            self._told.pop("refused", None)
        self._journal.tell("launched", node=worker.name, **{self.KIND: worker.id})

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
