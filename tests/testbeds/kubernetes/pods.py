"""Pods of tests: as strict as Pod Security `restricted` wants them, but for the folders of this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kubernetes import client, stream

from testbeds.errors import TestbedError
from testbeds.kubernetes.image import USER_ID
from testbeds.kubernetes.layout import IMAGE, Node
from testbeds.kubernetes.project import project_volumes

POD_LIMIT_S = 120


def strict_pod(name: str, command: Sequence[str], node: Node | None = None, project: bool = False) -> dict[str, Any]:
    """The manifest of a pod that runs a command once, as an ordinary user who can write nowhere but in /tmp.

    With `project`, this checkout and its Python are in it.
    """
    volumes, mounts, env = project_volumes() if project else ([], [], [])
    container = {
        "name": "main",
        "image": IMAGE,
        "command": list(command),
        "env": [*env, {"name": "HOME", "value": "/tmp"}],
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
        "containers": [container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node.name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def wait_phase(
    admin: client.ApiClient, namespace: str, name: str, *phases: str, limit_s: float = POD_LIMIT_S
) -> client.V1Pod:
    """Until the pod is in one of these phases. Raises TestbedError with what is known of it."""
    core = client.CoreV1Api(admin)
    end = time.monotonic() + limit_s
    while (pod := core.read_namespaced_pod(name, namespace)).status.phase not in phases:
        if pod.status.phase in {"Failed", "Succeeded"} or time.monotonic() > end:
            events = core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
            told = "; ".join(str(event.message) for event in events[-5:])
            log = output(admin, namespace, name) if pod.status.phase in {"Failed", "Succeeded"} else ""
            raise TestbedError(f"pod {name} is {pod.status.phase}, not {' or '.join(phases)}: {told}\n{log}")
        time.sleep(0.1)
    return pod


def output(admin: client.ApiClient, namespace: str, name: str) -> str:
    """What the pod has printed."""
    return str(client.CoreV1Api(admin).read_namespaced_pod_log(name, namespace))


def execute(admin: client.ApiClient, namespace: str, name: str, command: Sequence[str], limit_s: float = 60) -> str:
    """What a command in a running pod prints, errors included, within the limit."""
    channel = stream.stream(
        client.CoreV1Api(admin).connect_get_namespaced_pod_exec,
        name,
        namespace,
        command=list(command),
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    try:
        channel.run_forever(timeout=limit_s)
        return str(channel.read_all())
    finally:
        channel.sock.shutdown()  # close() leaves a socket open that the other side has closed


def run(admin: client.ApiClient, namespace: str, pod: dict[str, Any], limit_s: float = POD_LIMIT_S) -> str:
    """Runs a pod to its good end; what it printed. Raises TestbedError when the end is no good one."""
    client.CoreV1Api(admin).create_namespaced_pod(namespace, pod)
    name = pod["metadata"]["name"]
    wait_phase(admin, namespace, name, "Succeeded", limit_s=limit_s)
    return output(admin, namespace, name)
