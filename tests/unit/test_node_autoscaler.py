"""When Ray's autoscaler does a round, and what makes it (dhctl.infra.node.autoscaler)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from ray.autoscaler.v2 import autoscaler as rays
from ray.core.generated.autoscaler_pb2 import (
    AutoscalingState,
    ClusterResourceState,
    NodeState,
    NodeStatus,
    PendingInstance,
    ResourceRequest,
    ResourceRequestByCount,
)
from ray.exceptions import RpcError

from dhctl.infra.node import autoscaler


@dataclass
class Ray:
    """The state a head tells, the rounds that were done and a clock that only moves where something waits."""

    now: float = 100.0
    state: ClusterResourceState = field(default_factory=ClusterResourceState)
    outcome: AutoscalingState | None = field(default_factory=AutoscalingState)
    rounds: list[float] = field(default_factory=list)
    looks: int = 0
    meanwhile: Callable[[], None] = lambda: None
    away: bool = False

    def look(self, _client: object) -> ClusterResourceState:
        self.looks += 1
        if self.away:
            raise RpcError("no head")
        told = ClusterResourceState()
        told.CopyFrom(self.state)
        told.cluster_resource_state_version = self.looks
        for node in told.node_states:
            node.idle_duration_ms = self.looks
        return told

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def round(self) -> AutoscalingState | None:
        self.rounds.append(self.now)
        return self.outcome


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    told = Ray(state=ClusterResourceState(node_states=[NodeState(node_id=b"head", status=NodeStatus.IDLE)]))
    monkeypatch.setattr(autoscaler, "get_cluster_resource_state", told.look)
    monkeypatch.setattr(autoscaler.time, "monotonic", lambda: told.now)
    monkeypatch.setattr(autoscaler.time, "sleep", told.sleep)
    monkeypatch.setattr(rays.Autoscaler, "__init__", lambda self: setattr(self, "_gcs_client", None))
    monkeypatch.setattr(rays.Autoscaler, "update_autoscaling_state", told.round)
    return told


def for_seconds(
    ray: Ray, seconds: float, scaler: autoscaler.EagerAutoscaler | None = None
) -> autoscaler.EagerAutoscaler:
    """As the monitor's loop does it."""
    scaler, end = scaler or autoscaler.EagerAutoscaler(), ray.now + seconds
    while ray.now < end:
        scaler.update_autoscaling_state()
        ray.sleep(autoscaler.PAUSE_S)
    return scaler


def settled(ray: Ray) -> autoscaler.EagerAutoscaler:
    scaler = for_seconds(ray, 10)
    ray.rounds.clear()
    return scaler


def test_while_nothing_changes_there_is_a_round_a_second(ray: Ray) -> None:
    for_seconds(ray, 20, settled(ray))
    assert 18 <= len(ray.rounds) <= 21


def test_new_demand_has_its_round_at_the_next_look_and_more_after_it(ray: Ray) -> None:
    scaler = settled(ray)
    asked = ray.now + 5.1

    def demand() -> None:
        if ray.now > asked and not ray.state.pending_resource_requests:
            request = ResourceRequest(resources_bundle={"CPU": 1})
            ray.state.pending_resource_requests.append(ResourceRequestByCount(request=request, count=1))

    ray.meanwhile = demand
    for_seconds(ray, 10, scaler)
    after = [at - asked for at in ray.rounds if at > asked]
    assert after[0] <= autoscaler.PAUSE_S
    assert sum(at <= autoscaler.SETTLED_S for at in after) >= 7
    assert sum(at > autoscaler.SETTLED_S + 0.5 for at in after) <= 4


def test_a_node_that_goes_has_its_round_at_the_next_look(ray: Ray) -> None:
    ray.state.node_states.append(NodeState(node_id=b"w-1", status=NodeStatus.RUNNING))
    scaler = settled(ray)
    ray.state.node_states[1].status = NodeStatus.DEAD
    for_seconds(ray, 0.3, scaler)
    assert len(ray.rounds) == 2


@pytest.mark.parametrize("outcome", [AutoscalingState(pending_instances=[PendingInstance(instance_id="w-1")]), None])
def test_while_a_worker_is_on_its_way_or_a_round_failed_every_look_is_a_round(
    ray: Ray, outcome: AutoscalingState | None
) -> None:
    scaler = settled(ray)
    ray.outcome = outcome
    for_seconds(ray, 10, scaler)
    assert len(ray.rounds) >= 35


def test_a_head_that_does_not_answer_is_left_to_the_round(ray: Ray) -> None:
    scaler = settled(ray)
    ray.away, ray.outcome = True, None
    for_seconds(ray, 1, scaler)
    assert len(ray.rounds) == 4
