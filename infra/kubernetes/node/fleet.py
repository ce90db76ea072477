"""The workers of a run as the Kubernetes API tells of them, and what is done about those without a place."""

from __future__ import annotations

import time
from typing import ClassVar

from dhctl.infra.kubernetes.mark import ROLE_LABEL, WORKER, Mark
from dhctl.infra.kubernetes.node.pods import Pod, PodApi, PodApiError
from dhctl.infra.kubernetes.node.settings import PodSettings
from dhctl.infra.node.fleet import Fleet
from dhctl.infra.node.journal import NodeJournal

SOUND_S = 60.0
"""A worker that ran this long was able to: the next one need not wait when it ends."""

PROMISED_S = 900.0
"""How long a pod is kept for which the cluster makes a node."""

TAKEN_AWAY = ("Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "DeadlineExceeded")
"""Reasons of a pod's end that are none of its own."""


class PodFleet(Fleet[Pod]):
    """Pods of the role worker."""

    API: ClassVar[str] = "the cluster"
    KIND: ClassVar[str] = "pod"

    def __init__(self, api: PodApi, settings: PodSettings, journal: NodeJournal) -> None:
        super().__init__(journal)
        self._api, self._settings = api, settings
        self._selector = f"{Mark(settings.run_id).selector},{ROLE_LABEL}={WORKER}"
        self._stuck: dict[str, tuple[float, str]] = {}
        """Since when each one has no place, or no image, and why."""
        self._promised: set[str] = set()

    def _list(self) -> list[Pod]:
        pods = self._api.pods(self._selector)
        there = {pod.name for pod in pods}
        self._stuck = {name: stuck for name, stuck in self._stuck.items() if name in there}
        self._promised &= there
        for pod in pods:
            self._tell_loss(pod)
        return pods

    def _tell_loss(self, worker: Pod) -> None:
        """One that others take away is named while it can be: when it is gone nobody knows why."""
        if worker.taken:
            self.tell_once("failed", worker.name, f"worker {worker.name} was taken away: {worker.taken}")
        elif worker.out_of_memory and self._released(worker):
            self.tell_once("failed", worker.name, _end_of(worker))

    def _released(self, worker: Pod) -> bool:
        """Whether Ray let go of it, so that its end was not looked into before."""
        with self._lock:
            return self._to_end.get(worker.name, False)

    def _ask_deletion(self, worker: Pod) -> None:
        """Ray may have noticed a loss, and ask for this, before the pod was listed with the reason."""
        now = self._api.delete(worker)
        if now:
            self._tell_loss(now)

    def _problem(self, worker: Pod) -> str:
        if worker.ended:
            return _end_of(worker)
        stuck = _stuck(worker)
        if stuck:
            return self._out_of_patience(worker, stuck)
        self._stuck.pop(worker.name, None)
        if worker.up and worker.started_at > self.back_off.failed_at and time.time() - worker.started_at > SOUND_S:
            with self._lock:
                self.back_off.worked()
        return ""

    def _out_of_patience(self, worker: Pod, stuck: str) -> str:
        """Tells at once what holds workers up, once for all of them; the sentence again when it has lasted too long."""
        now = time.monotonic()
        since, _ = self._stuck.get(worker.name, (now, ""))
        if all(stuck != reason for _, reason in self._stuck.values()):
            self._journal.tell("trouble", node=worker.name, reason=stuck)
        self._stuck[worker.name] = since, stuck
        lasted_s = now - since
        if lasted_s <= self._settings.unschedulable_s:
            return ""
        if worker.unschedulable and lasted_s <= PROMISED_S and self._node_is_made(worker):
            return ""
        return f"{stuck}; given up after {lasted_s:.0f} s"

    def _node_is_made(self, worker: Pod) -> bool:
        """Asked for each one until the cluster has said so."""
        try:
            if worker.name not in self._promised and self._api.promised(worker):
                self._promised.add(worker.name)
        except PodApiError as error:
            self.tell_once("api", "events", f"events of {worker.name} cannot be listed: {error}")
        return worker.name in self._promised

    def _give_up(self, worker: Pod, problem: str) -> None:
        """A worker that had worked, or was taken away, is only named: Ray asks for another one when it needs it."""
        ran_s = worker.ended_at - worker.started_at if worker.started_at else 0.0
        if worker.ended and (ran_s > SOUND_S or worker.reason.partition(":")[0] in TAKEN_AWAY):
            self._journal.tell("failed", node=worker.name, reason=problem)
        else:
            self.failed(problem, worker.name)


def _end_of(worker: Pod) -> str:
    return f"worker {worker.name} ended: {worker.reason or worker.phase}"


def _stuck(worker: Pod) -> str:
    if worker.unschedulable:
        return f"no node takes a worker: {worker.unschedulable}"
    return f"a worker cannot start: {worker.waiting}" if worker.waiting else ""
