"""The nodes of a run as its crate tells them: from when to when each was there and who says so. No names of a site."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dhctl.infra.ledger import Entry, last
from dhctl.infra.node_lives import HEAD, NodeLife, node_lives
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
    """All nodes that were there, by their begin. Where a provider told of workers, what only Ray saw is left out."""
    lives = node_lives(entries)
    heads = [node for node in lives if node.is_head and node.made]
    workers = [node for node in lives if not node.is_head and node.made]
    workers = workers or [node for node in lives if node.only_ray_tells]
    down = last(entries, "down", "done", "failed")
    uses = [_use(node, number, down) for role in (heads, workers) for number, node in enumerate(role, 1)]
    return sorted(uses, key=lambda use: (use.start, use.node))


def _use(node: NodeLife, number: int, down: Entry | None) -> NodeUse:
    """A worker that Ray alone tells has an address of the site's network for its name, which stays out."""
    role = "head" if node.is_head else "worker"
    name = f"{role}-{number}" if node.name == HEAD or node.only_ray_tells else node.name
    start = node.made or node.asked
    if node.end is None and down:
        return NodeUse(name, role, start, down.at, "down")
    return NodeUse(name, role, start, node.end, "ray" if node.only_ray_tells else "provider")


def worker_seconds(uses: Iterable[NodeUse]) -> float:
    """Time of all workers together, of those that ended."""
    ended = ((use.end - use.start).total_seconds() for use in uses if use.role == "worker" and use.end)
    return round(sum(ended), 1)
