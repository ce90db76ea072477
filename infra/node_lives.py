"""The nodes of a run, head and workers, as its ledger tells them: one reading for the report and for the crate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dhctl.infra.head_ledger import when
from dhctl.infra.ledger import Entry, until_gone

HEAD = "head"
"""What a head in a cloud is called here: there is one at a time."""

HEAD_KINDS = ("instance", "server", "pod", "raycluster")
"""What a head is in the ledger's lines of resources, in the words of each cloud, without capitals."""

WITH_THE_RUN = "ended with the run"


@dataclass
class NodeLife:
    """One node. Each moment is None where nobody told it."""

    name: str
    is_head: bool
    asked: datetime
    """When the order for it went out; for a worker that an operator makes, when Ray was first seen to have it."""
    made: datetime | None = None
    """When it was there: a provider said so, or it began to boot."""
    joined: datetime | None = None
    """When Ray was first seen to have it."""
    end: datetime | None = None
    why: str = ""
    """Why it went, for people; "" while it is there."""
    lost: bool = False
    """It went without being asked to."""
    only_ray_tells: bool = False
    """An operator makes it, and the ledger has it from Ray alone."""


def node_lives(entries: Sequence[Entry]) -> list[NodeLife]:
    """All nodes, those that did not start as well, in the order in which they were asked for.

    What a head told late counts from when it happened; looks at a run that was gone already count nothing.
    """
    reader = _Reader()
    for entry in sorted(until_gone(entries), key=when):
        reader.take(entry)
    return reader.lives


@dataclass
class _Reader:
    """Goes through the journal once, oldest line first."""

    lives: list[NodeLife] = field(default_factory=list)
    newest: dict[str, NodeLife] = field(default_factory=dict)
    """By name: the last that bore it."""
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
                self._lose_heads(at)
                self._begin(name, at, is_head=True)
            case "head.start", "done":
                self._made(name, at, is_head=True)
            case "head.start", "failed":
                self._end(name, at, "did not start", lost=True)
            case (("head.boot" | "head.ray"), "intent"):
                self._made(self._living_head() or HEAD, at, is_head=True)
            case "resource.create", "intent" if _is_head(entry):
                self._begin(HEAD, at, is_head=True)
            case "resource.delete", ("done" | "note"):
                self._end(HEAD if _is_head(entry) else str(entry.detail.get("name", "")), at, WITH_THE_RUN)
            case "head.recover", "intent":
                self._lose_heads(at)
            case "head.recover", "done":
                self._recovered(at, is_same=entry.detail.get("how") == "back")
            case _:
                return

    def _take_worker(self, entry: Entry) -> None:
        at, name = when(entry), str(entry.detail.get("node", ""))
        match entry.act, entry.phase:
            case "node.start", "intent":
                self._begin(name, at, is_head=False)
                if address := entry.detail.get("address"):
                    self.names[str(address)] = name
            case "node.start", "done":
                self._made(name, at, is_head=False)
            case "node.start", "failed":
                self._end(name, at, "did not start", lost=True)
            case "node.seen", _:
                self._seen(entry)
            case (("node.leave" | "nodes.stop" | "lease.delete"), ("note" | "done")):
                self._left(entry)
            case _:
                return

    def _begin(self, name: str, at: datetime, *, is_head: bool) -> NodeLife:
        """The node of this name that lives, else a new one."""
        node = self.newest.get(name)
        if node is None or node.end:
            node = self.newest[name] = NodeLife(name, is_head, at)
            self.lives.append(node)
        return node

    def _made(self, name: str, at: datetime, *, is_head: bool) -> None:
        node = self._begin(name, at, is_head=is_head)
        node.made = node.made or at

    def _living_head(self) -> str:
        return next((node.name for node in self.lives if node.is_head and not node.end), "")

    def _lose_heads(self, at: datetime) -> None:
        for node in self.lives:
            if node.is_head and not node.end:
                node.end, node.why, node.lost = at, "lost", True

    def _recovered(self, at: datetime, *, is_same: bool) -> None:
        """A head that was only out of reach never ended."""
        if self._living_head():
            return
        before = next((node for node in reversed(self.lives) if node.is_head), None)
        if is_same and before:
            before.end, before.why, before.lost = None, "", False
        else:
            self._made(HEAD, at, is_head=True)

    def _end(self, name: str, at: datetime, why: str, *, lost: bool = False) -> None:
        node = self.newest.get(name)
        if node and not node.end:
            node.end, node.why, node.lost = at, why, lost

    def _seen(self, entry: Entry) -> None:
        """Ray tells addresses, and of most nodes the name that dhctl gave them."""
        told, at = entry.detail, when(entry)
        address, name = str(told.get("node", "")), str(told.get("name") or "")
        name = name if name in self.newest else self.names.get(address, name or address)
        node = self.newest.get(name)
        if told.get("status") == "left":
            if node and not node.end:
                node.why, node.end = "left Ray", at if node.only_ray_tells else None
            return
        if node is None or node.end:
            node = self._begin(name, at, is_head=False)
            node.only_ray_tells = True
        node.joined = node.joined or at

    def _left(self, entry: Entry) -> None:
        why, lost = _reason(entry)
        names = entry.detail.get("nodes") or [entry.detail.get("node")]
        for name in names if isinstance(names, list) else []:
            self._end(str(name), when(entry), why, lost=lost)


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
            return WITH_THE_RUN, False
