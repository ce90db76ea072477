"""What went wrong where neither Pulumi nor Ray tells it: pods without a node or an image, killed or crashed ones,
events of the run's objects, and what the head's autoscaler met.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dhctl.infra.errors import DhctlError
from dhctl.infra.kubernetes.apply import held_by
from dhctl.infra.kubernetes.client import Cluster
from dhctl.infra.kubernetes.inventory import RAISED, items_of
from dhctl.infra.kubernetes.mark import HEAD, Mark
from dhctl.infra.kubernetes.pod_exec import PodEndpoint, run_in_pod
from dhctl.infra.kubernetes.pod_files import log_of, pods_of
from dhctl.infra.node.layout import HOME
from dhctl.infra.units import format_size

EVENTS = f"{HOME}/log/events.jsonl"
TELLING = ("refused", "failed", "trouble")
RELEASED = "released"
"""Reason of a worker's leave that Ray asked for; all others are told."""

READ_S = 20.0
LATE_S = 20.0
"""How long after its grace a pod may take to end; clocks differ by less."""

NEWEST = 3
LAST_LINES = 5
NAMED = 6
"""Sentences about pods; a hundred workers without a node have one reason."""

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
START_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
EVENT_REASONS = (
    *("FailedCreate", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "ProvisioningFailed"),
    "FailedBinding",
)
"""What no pod's status tells: a quota that is used up, volumes that do not come, a network that does not."""


def of_run(cluster: Cluster, namespace: str, run_id: str) -> list[str]:
    """A sentence for each thing that is wrong with the run. Never raises: this only explains."""
    head = PodEndpoint(cluster, namespace, Mark(run_id).name(HEAD))
    return list(dict.fromkeys([*of_pods(cluster, namespace, run_id), *of_workers(head)]))


def of_pods(cluster: Cluster, namespace: str, run_id: str) -> list[str]:
    """A sentence for each thing that is wrong. Silent where the API does not answer."""
    try:
        found = [sentence for pod in pods_of(cluster, namespace, run_id) for sentence in of_pod(cluster, pod)]
    except (*RAISED, DhctlError):
        found = []
    try:
        found += _events(cluster, namespace, run_id)
    except RAISED:
        return _few(found)
    return _few(found)


def of_workers(head: PodEndpoint) -> list[str]:
    """What the head's autoscaler told newest of workers that did not come, each once; empty where it is unreachable."""
    with tempfile.TemporaryFile() as lines:
        try:
            run_in_pod(head, ["tail", "-n", "200", EVENTS], lines, READ_S)
        except DhctlError:
            return []
        lines.seek(0)
        read = lines.read().decode(errors="replace").splitlines()
    return list(dict.fromkeys(filter(None, map(_sentence, read))))[-NEWEST:]


def of_pod(cluster: Cluster, pod: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one pod, as the API tells it."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"pod {name} has no node: {_words(condition)}"
        if condition.get("type") == "DisruptionTarget" and pod["metadata"].get("deletionTimestamp"):
            yield f"pod {name} is taken away: {_words(condition)} ({condition.get('reason')})"
    if _is_late(pod):
        yield f"pod {name} does not end: {held_by(pod)}"
    if status.get("reason") == "Evicted":
        yield f"pod {name} was evicted: {_words(status)}"
    elif status.get("phase") == "Failed" and status.get("reason"):
        yield f"pod {name} failed: {_words(status)}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        yield from _of_container(cluster, pod, container)


def _is_late(pod: dict[str, Any]) -> bool:
    until = pod["metadata"].get("deletionTimestamp")  # it has the grace in it
    return bool(until) and time.time() - datetime.fromisoformat(until).timestamp() > LATE_S


def _of_container(cluster: Cluster, pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name = pod["metadata"]["name"]
    waiting = (container.get("state") or {}).get("waiting") or {}
    now, before = (((container.get(key) or {}).get("terminated") or {}) for key in ("state", "lastState"))
    ended = now or before
    if waiting.get("reason") in IMAGE_REASONS:
        yield f"pod {name} cannot get the image {container.get('image')}: {_words(waiting)}"
    elif waiting.get("reason") in START_REASONS:
        yield f"pod {name} cannot start: {_words(waiting)}"
    if ended.get("reason") == "OOMKilled":
        yield f"pod {name} was killed because it needed more than its {_memory(pod, container['name'])} of memory"
    elif waiting.get("reason") == "CrashLoopBackOff" or ended.get("exitCode"):
        often = "again and again " if waiting.get("reason") == "CrashLoopBackOff" else ""
        told = _last_lines(cluster, pod, container["name"], previous=not now) or str(ended.get("message") or "")
        code = ended.get("exitCode", "unknown")
        yield f"pod {name} crashed {often}(exit code {code})" + (f": {told}" if told else "")


def _memory(pod: dict[str, Any], container: str) -> str:
    for one in pod["spec"]["containers"]:
        if one["name"] == container:
            limit = str(((one.get("resources") or {}).get("limits") or {}).get("memory") or "share")
            return format_size(int(limit)) if limit.isdigit() else limit
    return "share"


def _last_lines(cluster: Cluster, pod: dict[str, Any], container: str, *, previous: bool) -> str:
    try:
        text = log_of(cluster, pod, container, LAST_LINES, previous=previous).decode(errors="replace")
    except RAISED:
        return ""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[-600:]


def _words(told: dict[str, Any]) -> str:
    return " ".join(str(told.get("message") or told.get("reason") or "no reason is given").split())[:500]


def _events(cluster: Cluster, namespace: str, run_id: str) -> Iterator[str]:
    """Warnings about the run's objects, the newest of each reason."""
    newest: dict[tuple[str, str], str] = {}
    path = f"/api/v1/namespaces/{namespace}/events"
    for event in items_of(cluster, path, [("fieldSelector", "type=Warning")]):
        about, reason = event.get("involvedObject") or {}, str(event.get("reason"))
        if str(about.get("name", "")).startswith(run_id) and reason in EVENT_REASONS:
            kind = str(about.get("kind", "object")).lower()
            newest[about["name"], reason] = f"{kind} {about['name']}: {_words(event)}"
    yield from newest.values()


def _few(found: list[str]) -> list[str]:
    once = list(dict.fromkeys(found))
    rest = len(once) - NAMED
    return once if rest <= 0 else [*once[:NAMED], f"{rest} more of the kind"]


def _sentence(line: str) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(event, dict):
        return ""
    if event.get("kind") == "left" and event.get("reason") != RELEASED:
        return f"worker {event.get('node')} is gone: {event.get('reason')}"
    return str(event.get("reason", "")) if event.get("kind") in TELLING else ""
