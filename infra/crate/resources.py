"""The nodes of a run with their begin and end, as its ledger tells them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry, last
from dhctl.infra.spec import Workers


@dataclass(frozen=True)
class NodeUse:
    """One node. `end` is None while it lives."""

    node: str
    role: str
    """head or worker."""
    start: datetime
    end: datetime | None = None
    seen_by: str = "provider"
    """provider: who made it told its begin and end. ray: begin and end are what Ray saw while a job ran. down: it ended
    at the latest when the run was taken down."""

    def to_dict(self, size: Workers) -> dict[str, Any]:
        """For JSON: times in UTC, and what a worker has of the spec's size."""
        body = asdict(self)
        body["start"], body["end"] = self.start.isoformat(), self.end.isoformat() if self.end else None
        if self.role == "worker":
            body |= {"cpus": size.cpus, "gpus": size.gpus, "memory_bytes": size.memory}
        return body


def node_uses(entries: Sequence[Entry]) -> list[NodeUse]:
    """All nodes of the run, by their begin."""
    found = _made(entries)
    if not any(use.role == "worker" for use in found.values()):
        found |= _seen_by_ray(entries)
    down = last(entries, "down", "done", "failed")
    uses = [replace(use, end=down.at, seen_by="down") if down and use.end is None else use for use in found.values()]
    return sorted(uses, key=lambda use: (use.start, use.node))


def _made(entries: Iterable[Entry]) -> dict[str, NodeUse]:
    """What providers and the engine say. Nodes of a cloud's head carry the head's own time."""
    found: dict[str, NodeUse] = {}
    for entry in entries:
        at, told = when(entry), entry.detail
        match entry.act, entry.phase:
            case ("head.start" | "node.start") as act, "done":
                node = str(told["node"])
                found[node] = NodeUse(node, "head" if act == "head.start" else "worker", at)
            case (("head.boot" | "head.ray"), "intent"):
                node = f"head-{sum(use.role == 'head' for use in found.values()) + 1}"
                if not any(use.role == "head" and use.end is None for use in found.values()):
                    found[node] = NodeUse(node, "head", at)
            case (("node.leave" | "nodes.stop" | "resource.delete"), ("done" | "note")):
                _end(found, [*told.get("nodes", ()), told.get("node"), told.get("name")], at)
            case "head.recover", "intent":
                _end(found, [node for node, use in found.items() if use.role == "head"], at)
            case "head.recover", "done" if told.get("how") == "back":
                node = max(found, key=lambda node: (found[node].role == "head", found[node].start))
                found[node] = replace(found[node], end=None)
            case _:
                continue
    return found


def _end(found: dict[str, NodeUse], names: Iterable[Any], at: datetime) -> None:
    """Those of the names that are nodes end, unless they have; a deleted resource is a node when its name is one's."""
    for name in names:
        if name in found and found[name].end is None:
            found[name] = replace(found[name], end=at)


def _seen_by_ray(entries: Iterable[Entry]) -> dict[str, NodeUse]:
    """Where an operator makes the workers, nobody but Ray tells; addresses are left out, order is kept."""
    found: dict[str, NodeUse] = {}
    living: dict[str, str] = {}
    for entry in entries:
        if entry.act != "node.seen":
            continue
        address = str(entry.detail["node"])
        if entry.detail["status"] == "joined" and address not in living:
            living[address] = node = f"worker-{len(found) + 1}"
            found[node] = NodeUse(node, "worker", entry.at, seen_by="ray")
        elif entry.detail["status"] == "left" and address in living:
            node = living.pop(address)
            found[node] = replace(found[node], end=entry.at)
    return found


def worker_seconds(uses: Iterable[NodeUse]) -> float:
    """Time of all workers together, of those that ended."""
    ended = ((use.end - use.start).total_seconds() for use in uses if use.role == "worker" and use.end)
    return round(sum(ended), 1)
