"""The worker pods of one run through the Kubernetes API, with the service account of the head's pod.

Only CoreV1Api is used, and of it the parts that have not changed for years: the client is the image's, not dhctl's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.mark import NODE_LABEL
from dhctl.infra.node.fleet import WorkerApiError

REQUEST_S = 20.0
GRACE_S = 2
"""A worker that is to go holds nothing: Ray has drained it, or its run is over."""

LAUNCH_NOTE = "dhctl/launch"
"""Annotation of a worker: which request of the autoscaler it answers."""

OOM_KILLED = "OOMKilled"
ON_ITS_WAY = ("", "ContainerCreating", "PodInitializing")
PROMISES = ("TriggeredScaleUp", "Nominated")
"""Events of the cluster autoscaler and of Karpenter: a node for this pod is being made."""


class PodApiError(WorkerApiError):
    """The API server refused, failed or did not answer."""

    @property
    def over_quota(self) -> bool:
        """Whether a ResourceQuota refuses; its plug-in says it in words alone."""
        return self.status == 403 and "exceeded quota" in str(self)

    @property
    def without_name(self) -> str:
        """The words behind the pod's name, which is a new one at each try: one refusal is one sentence."""
        return str(self).rpartition(" is forbidden: ")[2]


@dataclass(frozen=True)
class Pod:
    """One worker pod as the API shows it."""

    uid: str
    name: str
    phase: str
    created_at: float
    """Epoch seconds by the cluster's clock, as all times here; 0 when it does not tell."""
    ip: str = ""
    deletion: bool = False
    """Whether its deletion is under way."""
    labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why it ended: OOMKilled, Evicted, an exit code."""
    waiting: str = ""
    """Why a container cannot start, such as ErrImagePull, with the message."""
    unschedulable: str = ""
    """The scheduler's own words while it finds no node."""
    taken: str = ""
    """Why somebody takes it away while its deletion is under way: evicted, preempted, its node is lost."""
    started_at: float = 0.0
    """When its container started; 0 before."""
    ended_at: float = 0.0
    """When its container ended; 0 before."""
    launch: str = ""

    @property
    def id(self) -> str:
        """The API's id; never used again."""
        return self.uid

    @property
    def ending(self) -> bool:
        """Whether its deletion is under way."""
        return self.deletion

    @property
    def up(self) -> bool:
        """Whether its container runs, with Ray or still without."""
        return self.phase == "Running"

    @property
    def address(self) -> str:
        """Its IP."""
        return self.ip

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed for memory: no deletion looks like that."""
        return self.reason.startswith(OOM_KILLED)

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.phase in ("Failed", "Succeeded")


class PodApi(Protocol):
    """What the fleet needs of a cluster. All raise PodApiError."""

    def pods(self, selector: str) -> list[Pod]:
        """Those with these labels."""

    def owners(self, name: str) -> list[dict[str, Any]]:
        """The ownerReferences of a pod."""

    def create(self, body: Mapping[str, Any]) -> Pod:
        """Makes one."""

    def delete(self, pod: Pod) -> Pod | None:
        """Asks for its deletion, never for that of another one of its name; the pod as it is then, None when it is
        gone or the API shows none.
        """

    def promised(self, pod: Pod) -> bool:
        """Whether a node for this pod is being made."""


class ClusterPods:
    """PodApi over the official client."""

    def __init__(self, core: client.CoreV1Api, namespace: str) -> None:
        self._core, self._namespace = core, namespace

    @classmethod
    def here(cls, namespace: str) -> Self:
        """With the service account of this pod, past any proxy of the site. No call is made yet."""
        settings = client.Configuration()
        config.load_incluster_config(client_configuration=settings)
        settings.proxy = None
        settings.retries = urllib3.Retry(0, connect=0, read=0)
        return cls(client.CoreV1Api(client.ApiClient(settings)), namespace)

    def pods(self, selector: str) -> list[Pod]:
        """One list, whatever its size: a thousand pods are 5 MB."""
        body = self._call(self._core.list_namespaced_pod, label_selector=selector)
        return [pod_of(item) for item in body.get("items") or ()]

    def owners(self, name: str) -> list[dict[str, Any]]:
        """See PodApi."""
        found = self._call(self._core.read_namespaced_pod, name=name)["metadata"].get("ownerReferences")
        return list(found or ())

    def create(self, body: Mapping[str, Any]) -> Pod:
        """One POST, never repeated here: one whose answer was lost may have made the pod."""
        return pod_of(self._call(self._core.create_namespaced_pod, body=dict(body)))

    def delete(self, pod: Pod) -> Pod | None:
        """See PodApi."""
        options = {"gracePeriodSeconds": GRACE_S, "preconditions": {"uid": pod.uid}}
        try:
            body = self._call(self._core.delete_namespaced_pod, name=pod.name, body=options)
        except PodApiError as error:
            if error.status not in (404, 409):  # gone, or another one of its name
                raise
            return None
        return pod_of(body) if body.get("kind") == "Pod" else None

    def promised(self, pod: Pod) -> bool:
        """See PodApi."""
        body = self._call(self._core.list_namespaced_event, field_selector=f"involvedObject.uid={pod.uid}")
        return any(event.get("reason") in PROMISES for event in body.get("items") or ())

    def _call(self, call: Callable[..., Any], **options: Any) -> dict[str, Any]:
        """The answer's JSON: making the client's objects of a list takes ten times as long as the call."""
        try:
            answer = call(namespace=self._namespace, _preload_content=False, _request_timeout=REQUEST_S, **options)
            status, content = int(answer.status), answer.data
        except ApiException as error:
            raise PodApiError(int(error.status or 0), _message(error.body, error.reason)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise PodApiError(0, " ".join(str(error).split())[:300] or type(error).__name__) from error
        if not 200 <= status < 300:  # clients of some versions raise in no case when they do not decode
            raise PodApiError(status, _message(content, ""))
        found: dict[str, Any] = json.loads(content)
        return found


def _message(body: str | bytes | None, otherwise: str | None) -> str:
    """What the API server said, without the client's frame around it."""
    try:
        told = str(json.loads(body or "")["message"])
    except (ValueError, TypeError, KeyError):
        told = otherwise or "no reason given"
    return " ".join(told.split())[:500]


def pod_of(body: Mapping[str, Any]) -> Pod:
    """The API's JSON of one pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    states = [
        c.get("state") or {} for key in ("initContainerStatuses", "containerStatuses") for c in status.get(key) or ()
    ]
    ends = [state["terminated"] for state in states if state.get("terminated")]
    begins = [
        _epoch(s.get("startedAt")) for s in (state.get("running") or state.get("terminated") or {} for state in states)
    ]
    labels = metadata.get("labels") or {}
    return Pod(
        uid=str(metadata.get("uid", "")),
        name=str(labels.get(NODE_LABEL) or metadata["name"]),
        phase=str(status.get("phase", "Pending")),
        created_at=_epoch(metadata.get("creationTimestamp")),
        ip=str(status.get("podIP") or ""),
        deletion=bool(metadata.get("deletionTimestamp")),
        labels=labels,
        reason=_ended(status, ends),
        waiting=next(filter(None, (_waiting(state.get("waiting") or {}) for state in states)), ""),
        unschedulable=_unschedulable(status.get("conditions") or ()),
        taken=_taken(status.get("conditions") or ()) if metadata.get("deletionTimestamp") else "",
        started_at=max(begins, default=0.0),
        ended_at=max((_epoch(end.get("finishedAt")) for end in ends), default=0.0),
        launch=str((metadata.get("annotations") or {}).get(LAUNCH_NOTE, "")),
    )


def _ended(status: Mapping[str, Any], ends: Iterable[Mapping[str, Any]]) -> str:
    """The pod's own reason is the cause of its containers' end, where there is one."""
    if status.get("reason"):
        return _sentence(status)
    for end in ends:
        if end.get("reason") == OOM_KILLED:
            return f"{OOM_KILLED}: it used more memory than its limit"
        if end.get("exitCode"):
            told = _sentence({**end, "reason": end.get("reason") or "Error"})
            return f"{told} (exit code {end['exitCode']})"
    return ""


def _waiting(state: Mapping[str, Any]) -> str:
    return _sentence(state) if state.get("reason", "") not in ON_ITS_WAY else ""


def _unschedulable(conditions: Iterable[Mapping[str, Any]]) -> str:
    for condition in conditions:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return " ".join(str(condition.get("message") or condition.get("reason") or "no reason given").split())
    return ""


def _taken(conditions: Iterable[Mapping[str, Any]]) -> str:
    for condition in conditions:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _sentence({**condition, "reason": condition.get("reason") or "DisruptionTarget"})
    return ""


def _sentence(told: Mapping[str, Any]) -> str:
    message = " ".join(str(told.get("message") or "").split())[:500]
    return f"{told['reason']}: {message}" if message else str(told["reason"])


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
