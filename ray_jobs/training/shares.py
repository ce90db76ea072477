"""How many workers each of several elastic trainings gets: they share a cluster, and none waits for another's end.

Ray serves elastic trainings in the order they came, each up to its maximum, and keeps the request of a training that
was killed for three minutes. Here each asks for its share only: every training its minimum while there are workers,
first come first served, and what is left goes round. A training that is not heard of is dropped with its request.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ACTOR, NAMESPACE = "dhctl-shares", "dhctl"
ASKED_EVERY_S = 2.0
ANSWERED_WITHIN_S = 5.0
DEAD_AFTER_S = 30.0


@dataclass(frozen=True)
class Claim:
    """What a training wants."""

    requester: str
    """Its name at Ray's autoscaling coordinator."""
    since: float
    """When it began, epoch seconds."""
    least: int
    most: int


def shares(claims: Iterable[Claim], capacity: int) -> dict[str, int]:
    """Workers for each training, by requester: 0 for one that must wait."""
    queue = sorted(claims, key=lambda claim: (claim.since, claim.requester))
    given = dict.fromkeys((claim.requester for claim in queue), 0)
    for claim in queue:
        if claim.least <= capacity:
            given[claim.requester] = claim.least
            capacity -= claim.least
    while capacity:
        growing = [claim for claim in queue if 0 < given[claim.requester] < claim.most][:capacity]
        if not growing:
            break
        for claim in growing:
            given[claim.requester] += 1
            capacity -= 1
    return given


class Register:
    """The claims of all trainings of a cluster: a named actor on the head."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[Claim, float]] = {}

    def share(self, claim: Claim, capacity: int) -> int:
        """Renew a claim; how many workers it has now."""
        now = time.monotonic()
        self._claims[claim.requester] = (claim, now)
        for requester in [name for name, (_, heard) in self._claims.items() if now - heard > DEAD_AFTER_S]:
            del self._claims[requester]
            _cancel(requester)
        return shares((one for one, _ in self._claims.values()), capacity)[claim.requester]

    def release(self, requester: str) -> None:
        """A training has ended. The last one takes the actor with it."""
        self._claims.pop(requester, None)
        if not self._claims:
            ray.actor.exit_actor()  # type: ignore[no-untyped-call]


@dataclass
class SharedScaling(ScalingConfig):
    """An elastic ScalingConfig whose maximum is this training's share, asked for anew while it runs.

    Ray Train's controller reads `max_workers` each time it decides.
    """

    claim: Claim | None = None
    """None until the training has a name."""
    capacity: int = 0
    """Workers of the cluster."""

    def __post_init__(self) -> None:
        """Begin with the maximum, as Ray checks it."""
        assert isinstance(self.num_workers, tuple)
        self._share: int = self.num_workers[1]
        self._asked = float("-inf")
        super().__post_init__()  # type: ignore[no-untyped-call]

    @property
    def max_workers(self) -> int:
        """How many workers to train on now; 0 is to wait. The last answer where there is none."""
        if self.claim is not None and time.monotonic() - self._asked > ASKED_EVERY_S:
            self._asked = time.monotonic()
            try:
                asked = _register().share.remote(self.claim, self.capacity)
                self._share = ray.get(asked, timeout=ANSWERED_WITHIN_S)
            except ray.exceptions.RayError:
                return self._share
        return self._share

    def release(self) -> None:
        """Give the share back. A register that does not answer forgets it by itself."""
        if self.claim is not None:
            try:
                ray.get(_register().release.remote(self.claim.requester), timeout=ANSWERED_WITHIN_S)
            except ray.exceptions.RayError:
                return


def _register() -> Any:
    # Detached: it must know of a training after its driver was killed. On this node, the head: workers come and go.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(Register)
        .options(
            name=ACTOR,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=here,
        )
        .remote()
    )


def _cancel(requester: str) -> None:
    """Take a dead training's request out of Ray's autoscaling coordinator, which keeps it for 180 s otherwise."""
    # Not public; the request also expires by itself. A test on a real cluster holds this to Ray's version.
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    coordinator: Any = get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]
    coordinator.cancel_request.remote(requester)
