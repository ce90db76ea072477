"""Ray's autoscaler (ray.autoscaler.v2.monitor) that looks for demand four times a second: its setting takes seconds.

Half of the time between two looks is what a worker waits for on average; see docs/benchmarks-kubernetes.md. A look
costs a part of a round (demand, nodes, the site's workers, what to start and to end), and while nothing changes there
is a round a second: rounds at every look took 6 % of a core from two workers that trained on two cores.
"""

from __future__ import annotations

import runpy
import time
from collections.abc import Hashable
from typing import Any

from ray.autoscaler._private import constants
from ray.autoscaler.v2 import autoscaler
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.exceptions import RayError

PAUSE_S = 0.25
"""Between two looks."""

LONGEST_PAUSE_S = 1.0
"""Between two rounds, about: idle workers are found at a round, and the site is asked for its workers then."""

SETTLED_S = 2.0
"""For so long after a change there is a round at every look: Ray takes a worker from state to state over several."""


class EagerAutoscaler(autoscaler.Autoscaler):
    """Ray's autoscaler, whose rounds wait until something changed or is under way, `LONGEST_PAUSE_S` at most."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seen: Hashable = None
        self._busy_until = self._round_due = 0.0

    def update_autoscaling_state(self) -> Any | None:
        """Ray's own round; raises what that raises."""
        while not self._something_new() and time.monotonic() < self._round_due:
            time.sleep(PAUSE_S)
        state = super().update_autoscaling_state()
        now = time.monotonic()
        if state is None or state.pending_instance_requests or state.pending_instances:
            self._busy_until = now + SETTLED_S
        # the monitor itself sleeps for PAUSE_S after each round
        self._round_due = 0.0 if now < self._busy_until else now + LONGEST_PAUSE_S - PAUSE_S / 2
        return state

    def _something_new(self) -> bool:
        """Whether demand or nodes differ from the last look's; a head that does not answer is left to the round."""
        try:
            seen = demand_and_nodes(get_cluster_resource_state(self._gcs_client))
        except RayError:
            return True
        changed, self._seen = seen != self._seen, seen
        if changed:
            self._busy_until = time.monotonic() + SETTLED_S
        return changed


def demand_and_nodes(state: Any) -> Hashable:
    """What makes the autoscaler act, of Ray's ClusterResourceState; not what changes always (idle times)."""
    wanted = (state.pending_resource_requests, state.pending_gang_resource_requests, state.cluster_resource_constraints)
    nodes = frozenset((node.node_id, node.status) for node in state.node_states)
    return nodes, tuple(message.SerializeToString(deterministic=True) for messages in wanted for message in messages)


def main() -> None:
    """Runs Ray's own program with our autoscaler and pause, which it takes from these modules when it is imported."""
    constants.AUTOSCALER_UPDATE_INTERVAL_S = PAUSE_S
    autoscaler.Autoscaler = EagerAutoscaler  # type: ignore[misc]
    runpy.run_module("ray.autoscaler.v2.monitor", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
