"""The nodes of a run as the report shows them: none outlives the run, and each has a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dhctl.infra.ledger import Entry
from dhctl.infra.node_lives import WITH_THE_RUN, NodeLife, node_lives
from dhctl.infra.report_page.phases import Life


@dataclass(frozen=True)
class NodeSpan:
    """One node. `joined` is when Ray was first seen to have it; None where nobody looked."""

    name: str
    is_head: bool
    begin: datetime
    """When it was asked for."""
    end: datetime
    joined: datetime | None
    why: str
    """Why it went, for people; "" while it is there."""
    lost: bool = False
    """It went without being asked to."""

    @property
    def seconds(self) -> float:
        """How long it was there, from when it was asked for."""
        return (self.end - self.begin).total_seconds()


def nodes_of(entries: Sequence[Entry], life: Life) -> list[NodeSpan]:
    """Head first, then workers in the order in which they came; none outlives the run."""
    found = [_span(node, life) for node in node_lives(entries)]
    return sorted(found, key=lambda n: (not n.is_head, n.begin))


def peak(nodes: Iterable[NodeSpan]) -> int:
    """Workers at most at one time."""
    return max((count for _, count in counts((n.begin, n.end) for n in nodes if not n.is_head)), default=0)


def counts(lives: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, int]]:
    """How many there are from each moment on, as steps."""
    changes: dict[datetime, int] = {}
    for begin, end in lives:
        changes[begin] = changes.get(begin, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    steps, alive = [], 0
    for at in sorted(changes):
        alive += changes[at]
        steps.append((at, alive))
    return steps


def _span(node: NodeLife, life: Life) -> NodeSpan:
    end = node.end or life.end
    why = node.why or ("" if life.living and not node.end else WITH_THE_RUN)
    return NodeSpan(node.name, node.is_head, node.asked, max(end, node.asked), node.joined, why, node.lost)
