"""Workers that join and leave are told, and stand in the ledger under the name that dhctl gave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dhctl.infra import node_watch, ray_api
from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, NodeChanged
from dhctl.infra.node_watch import NodeWatch, noting
from dhctl.infra.ray_api import Connection, RayNode
from dhctl.infra.record import RunRecord

HEAD, WORKER = RayNode("10.0.0.1", "head"), RayNode("10.0.0.7", "run-w-1")
CONNECTION = Connection("http://x", "x:1", "x:2", "token", HEAD.address)


def test_joins_and_leaves(
    record: RunRecord, told: list[Event], monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    def looks() -> Iterator[dict[str, RayNode]]:
        yield {"a": HEAD}
        yield {"a": HEAD, "b": WORKER}
        yield {}  # Ray does not answer
        yield {"a": HEAD, "b": WORKER}
        while True:
            yield {"a": HEAD}

    answers = looks()

    def listed(_connection: Connection) -> dict[str, RayNode]:
        found = next(answers)
        if not found:
            raise ClusterError("no answer")
        return found

    monkeypatch.setattr(node_watch, "EVERY_S", 0.01)
    monkeypatch.setattr(node_watch, "listed_nodes", listed)
    with NodeWatch(CONNECTION, noting(record.ledger, told.append)):
        eventually(lambda: len(told) == 2)
    assert told == [NodeChanged("10.0.0.7", "joined", 1, "run-w-1"), NodeChanged("10.0.0.7", "left", 0, "run-w-1")]
    seen = [e.detail for e in record.ledger.entries() if e.act == "node.seen"]
    assert seen == [
        {"node": "10.0.0.7", "name": "run-w-1", "status": "joined", "alive": 1},
        {"node": "10.0.0.7", "name": "run-w-1", "status": "left", "alive": 0},
    ]


def test_nodes_as_ray_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = {"state": "ALIVE", "nodeId": "a", "nodeManagerAddress": "10.0.0.1"}
    raylets = [alive, {**alive, "nodeId": "b", "instanceId": "w-1"}, {**alive, "nodeId": "c", "state": "DEAD"}, {}]
    body = {"data": {"summary": [{"raylet": raylet} for raylet in raylets]}}
    monkeypatch.setattr(ray_api, "_get", lambda connection, path, timeout_s: body)
    assert ray_api.listed_nodes(CONNECTION) == {"a": RayNode("10.0.0.1"), "b": RayNode("10.0.0.1", "w-1")}
    assert ray_api.alive_nodes(CONNECTION) == {"a": "10.0.0.1", "b": "10.0.0.1"}
