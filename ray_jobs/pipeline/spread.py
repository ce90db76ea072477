"""Doing one thing to many items: here, or as Ray tasks over the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Ahead = Callable[[Sequence[Item]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Lost:
    """The process that worked on an item died, also when tried again with this item alone."""

    reason: str


class Spread(Protocol):
    """A way to do work on items."""

    def each(
        self, work: Callable[[Item], Outcome], items: Sequence[Item], ahead: Ahead[Item] | None = None
    ) -> Iterator[tuple[Item, Outcome | Lost]]:
        """Yield (item, work(item)) as they are done, in any order. Exceptions of `work` are raised here.

        `ahead` is entered around the items that one process works on, one after the other: it may fetch their files.
        """
        ...


class InThisProcess:
    """One item after the other, without Ray."""

    def each(
        self, work: Callable[[Item], Outcome], items: Sequence[Item], ahead: Ahead[Item] | None = None
    ) -> Iterator[tuple[Item, Outcome | Lost]]:
        """See Spread."""
        with ahead(items) if ahead else nullcontext():
            for item in items:
                yield item, work(item)


@dataclass(frozen=True)
class RayTasks:
    """Ray tasks; the demand makes the autoscaler start workers."""

    cpus: int
    """CPU cores the cluster is expected to have: enough tasks are made to use them all."""
    largest_chunk: int = 8
    """Items in a task at most, so that progress is seen and a lost task costs little."""
    cpus_each: int = 1
    """CPU cores of a task."""
    gpus_each: int = 0
    """GPUs of a task."""

    def each(
        self, work: Callable[[Item], Outcome], items: Sequence[Item], ahead: Ahead[Item] | None = None
    ) -> Iterator[tuple[Item, Outcome | Lost]]:
        """See Spread. A task lost with its node is tried again by Ray; then its items are tried one by one."""
        size = min(self.largest_chunk, max(1, len(items) // (4 * self.cpus)))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        suspects: list[Item] = []
        for chunk, outcomes in self._run(work, chunks, ahead):
            if isinstance(outcomes, Lost):
                suspects.extend(chunk)
            else:
                yield from zip(chunk, outcomes, strict=True)
        for chunk, outcomes in self._run(work, [[item] for item in suspects], ahead):
            yield chunk[0], outcomes if isinstance(outcomes, Lost) else outcomes[0]

    def _run(
        self, work: Callable[[Item], Outcome], chunks: Sequence[Sequence[Item]], ahead: Ahead[Item] | None
    ) -> Iterator[tuple[Sequence[Item], list[Outcome] | Lost]]:
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

        def whole_chunk(chunk: Sequence[Item]) -> list[Outcome]:
            with ahead(chunk) if ahead else nullcontext():
                return [work(item) for item in chunk]

        # One slide can kill a worker (a decoder's crash, memory): that must not end the job, so it is told from a bug.
        remote: Any = ray.remote(num_cpus=self.cpus_each, num_gpus=self.gpus_each, max_retries=2)(whole_chunk)
        running = {remote.remote(chunk): chunk for chunk in chunks}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            chunk = running.pop(done[0])
            try:
                yield chunk, ray.get(done[0])
            except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
                yield chunk, Lost(f"the process that read it died ({type(error).__name__})")
