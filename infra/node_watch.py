"""Asks Ray now and then, from a thread of its own: tells when workers join or leave, knows since when it is silent."""

from __future__ import annotations

import threading
import time
from typing import Self

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, NodeChanged, Report
from dhctl.infra.ledger import Ledger
from dhctl.infra.ray_api import Connection, RayNode, listed_nodes

EVERY_S = 2.0


def noting(ledger: Ledger, report: Report) -> Report:
    """A `Report` that writes into the ledger, too, which workers came and went, as Ray sees them."""

    def take(event: Event) -> None:
        if isinstance(event, NodeChanged):
            seen = {"node": event.node, "name": event.name, "status": event.status, "alive": event.alive}
            ledger.note("node.seen", **seen)
        report(event)

    return take


class NodeWatch:
    """While inside, each worker that joins or leaves is one event. A Ray that does not answer is asked again later."""

    def __init__(self, connection: Connection, report: Report) -> None:
        self._connection, self._report = connection, report
        self._stop = threading.Event()
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="node-watch")

    @property
    def silent_s(self) -> float:
        """Seconds since Ray answered last, or since this watch began."""
        return time.monotonic() - self._answered

    def __enter__(self) -> Self:
        self._answered = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=EVERY_S)

    def _watch(self) -> None:
        known: dict[str, RayNode] = {}
        head = self._connection.head_address
        while not self._stop.wait(EVERY_S):
            try:
                alive = {i: n for i, n in listed_nodes(self._connection).items() if n.address != head}
            except ClusterError:
                continue
            self._answered = time.monotonic()
            for node in known.keys() - alive.keys():
                gone = known.pop(node)
                self._report(NodeChanged(gone.address, "left", len(known), gone.name))
            for node in alive.keys() - known.keys():
                known[node] = new = alive[node]
                self._report(NodeChanged(new.address, "joined", len(known), new.name))
