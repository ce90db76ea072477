"""Tells when workers join or leave, by asking Ray now and then from a thread of its own."""

from __future__ import annotations

import threading
from typing import Self

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import NodeChanged, Report
from dhctl.infra.ray_api import Connection, alive_nodes

EVERY_S = 2.0


class NodeWatch:
    """While inside, each worker that joins or leaves is one event. A Ray that does not answer is asked again later."""

    def __init__(self, connection: Connection, report: Report) -> None:
        self._connection, self._report = connection, report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="node-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=EVERY_S)

    def _watch(self) -> None:
        known: dict[str, str] = {}
        head = self._connection.head_address
        while not self._stop.wait(EVERY_S):
            try:
                alive = {i: a for i, a in alive_nodes(self._connection).items() if a != head}
            except ClusterError:
                continue
            for node in known.keys() - alive.keys():
                address = known.pop(node)
                self._report(NodeChanged(address, "left", len(known)))
            for node in alive.keys() - known.keys():
                known[node] = alive[node]
                self._report(NodeChanged(alive[node], "joined", len(known)))
