"""The nodes of a run, head and workers: since when each was there, when Ray saw it, until when, and why it went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry
from dhctl.infra.report_page.phases import Life, until_gone

HEAD = "head"
"""What a head in a cloud is called here: there is one at a time."""

HEAD_KINDS = ("instance", "server", "pod", "raycluster")
"""What a head is in the ledger's lines of resources, in the words of each cloud, without capitals."""


@dataclass(frozen=True)
class NodeLife:
    """One node. `joined` is when Ray was first seen to have it; None where nobody looked."""

    name: str
    is_head: bool
    begin: datetime
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


@dataclass
class _Node:
    """A node while the journal is read."""

    name: str
    is_head: bool
    begin: datetime
    joined: datetime | None = None
    end: datetime | None = None
    why: str = ""
    lost: bool = False
    only_ray_tells: bool = False
    """An operator makes it, and the journal has its name from Ray alone."""


@dataclass
class _Reader:
    """Goes through the journal once, oldest line first."""

    known: dict[str, _Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Names of nodes by address: on this machine the journal tells both."""

    def take(self, entry: Entry) -> None:
        """The next line."""
        if entry.act.startswith(("head.", "resource.")):
            self._take_head(entry)
        else:
            self._take_worker(entry)

    def _take_head(self, entry: Entry) -> None:
        at, name = when(entry), str(entry.detail.get("node", HEAD))
        match entry.act, entry.phase:
            case "head.start", "intent":
                self._end_heads(at)
                self._begin(name, at, is_head=True)
            case "head.start", "failed":
                self._end(name, at, "did not start", lost=True)
            case (("head.boot" | "head.ray"), "intent"):
                self._begin(HEAD, at, is_head=True)
            case "resource.create", "intent" if _is_head(entry):
                self._begin(HEAD, at, is_head=True)
            case "resource.delete", "done" if _is_head(entry):
                self._end(HEAD, at, "ended with the run")
            case "head.recover", "intent":
                self._end_heads(at)
            case "head.recover", "done" if not any(n.is_head and not n.end for n in self.known.values()):
                self._begin(HEAD, at, is_head=True)
            case _:
                return

    def _take_worker(self, entry: Entry) -> None:
        at, name = when(entry), str(entry.detail.get("node", ""))
        match entry.act, entry.phase:
            case "node.start", "intent":
                self._begin(name, at, is_head=False)
                if address := entry.detail.get("address"):
                    self.names[str(address)] = name
            case "node.start", "failed":
                self._end(name, at, "did not start", lost=True)
            case "node.seen", _:
                self._seen(entry)
            case (("node.leave" | "nodes.stop" | "lease.delete"), ("note" | "done")):
                self._left(entry)
            case _:
                return

    def _begin(self, name: str, at: datetime, *, is_head: bool) -> None:
        if name not in self.known or self.known[name].end:
            self.known[_free(name, self.known)] = _Node(name, is_head, at)

    def _end_heads(self, at: datetime) -> None:
        for node in self.known.values():
            if node.is_head and not node.end:
                node.end, node.why, node.lost = at, "lost", True

    def _end(self, name: str, at: datetime, why: str, *, lost: bool = False) -> None:
        node = self.known.get(name)
        if node and not node.end:
            node.end, node.why, node.lost = at, why, lost

    def _seen(self, entry: Entry) -> None:
        """Ray tells addresses, and of most nodes the name that dhctl gave them."""
        told, at = entry.detail, when(entry)
        address, name = str(told.get("node", "")), str(told.get("name") or "")
        name = name if name in self.known else self.names.get(address, name or address)
        if told.get("status") == "left":
            node = self.known.get(name)
            if node and not node.end:
                node.why, node.end = "left Ray", at if node.only_ray_tells else None
            return
        if name not in self.known or self.known[name].end:
            self._begin(name, at, is_head=False)
            self.known[name].only_ray_tells = True
        self.known[name].joined = self.known[name].joined or at

    def _left(self, entry: Entry) -> None:
        why, lost = _reason(entry)
        names = entry.detail.get("nodes") or [entry.detail.get("node")]
        for name in names if isinstance(names, list) else []:
            self._end(str(name), when(entry), why, lost=lost)


def nodes_of(entries: Sequence[Entry], life: Life) -> list[NodeLife]:
    """Head first, then workers in the order in which they came; none outlives the run."""
    reader = _Reader()
    for entry in _in_time(until_gone(entries)):
        reader.take(entry)
    found = [_closed(node, life) for node in reader.known.values()]
    return sorted(found, key=lambda n: (not n.is_head, n.begin))


def peak(nodes: Iterable[NodeLife]) -> int:
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


def _closed(node: _Node, life: Life) -> NodeLife:
    end = node.end or life.end
    why = node.why or ("" if life.living and not node.end else "ended with the run")
    return NodeLife(node.name, node.is_head, node.begin, max(end, node.begin), node.joined, why, node.lost)


def _in_time(entries: Sequence[Entry]) -> Iterator[Entry]:
    yield from sorted(entries, key=when)


def _free(name: str, known: dict[str, _Node]) -> str:
    """A key for a node whose name was borne before; the newest has the name itself."""
    if name in known:
        number = sum(1 for key in known if key.partition("\0")[0] == name)
        known[f"{name}\0{number}"] = known.pop(name)
    return name


def _is_head(entry: Entry) -> bool:
    kind, name = (str(entry.detail.get(key, "")) for key in ("kind", "name"))
    return kind.lower() in HEAD_KINDS and (name.endswith("head") or kind.lower() == "raycluster")


def _reason(entry: Entry) -> tuple[str, bool]:
    match entry.act, entry.detail.get("why"):
        case "node.leave", "died":
            return "died", True
        case "node.leave", _:
            return "released", False
        case "lease.delete", _:
            return "ended at its lease", False
        case _:
            return "ended with the run", False
