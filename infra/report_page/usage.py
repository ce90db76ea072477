"""What a run held: hours of nodes, and of the cores, GPUs and memory in them, from when each was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhctl.infra.kubernetes.quantity import parse
from dhctl.infra.report_page.nodes import NodeSpan
from dhctl.infra.spec import RunSpec, TargetName

GIB = 2**30


@dataclass(frozen=True)
class Size:
    """What a node is. `flavor` is OpenStack's; a part is None where the spec does not tell it."""

    flavor: str = ""
    cpus: float | None = None
    gpus: float | None = None
    memory_gib: float | None = None

    @property
    def told(self) -> str:
        """For people."""
        parts = ((self.cpus, "core", "cores"), (self.gpus, "GPU", "GPUs"), (self.memory_gib, "GiB", "GiB"))
        known = [f"{count:g} {one if count == 1 else more}" for count, one, more in parts if count]
        return ", ".join([*([f"flavor {self.flavor}"] if self.flavor else []), *known]) or "not in the spec"


@dataclass(frozen=True)
class Usage:
    """Nodes of one size. Hours are node hours; a part is None where its size is not known."""

    what: str
    size: Size
    nodes: int
    hours: float

    def hours_of(self, each: float | None) -> float | None:
        """Hours of a part of which each node has `each`."""
        return None if each is None else each * self.hours


def usage_of(nodes: Sequence[NodeSpan], spec: RunSpec | None) -> list[Usage]:
    """Heads, then workers; nothing of what there was none of."""
    found = []
    for what, is_head in (("head", True), ("workers", False)):
        own = [node for node in nodes if node.is_head is is_head]
        if own:
            hours = sum(node.seconds for node in own) / 3600
            found.append(Usage(what, size_of(spec, is_head=is_head), len(own), hours))
    return found


def size_of(spec: RunSpec | None, *, is_head: bool) -> Size:
    """The size that the spec gives a node. A head on this machine has no share of it that is planned with."""
    if spec is None:
        return Size()
    workers, cloud = spec.workers, spec.openstack
    flavor = cloud.flavor or "" if spec.target is TargetName.OPENSTACK else ""
    if not is_head:
        return Size(flavor, float(workers.cpus), float(workers.gpus), workers.memory / GIB)
    match spec.target:
        case TargetName.OPENSTACK:
            return Size(cloud.head_flavor or flavor)
        case TargetName.KUBERNETES:
            pod = spec.kubernetes
            return Size("", float(parse(pod.head_cpus)), 0.0, pod.head_memory / GIB)
        case TargetName.LOCAL:
            return Size()
