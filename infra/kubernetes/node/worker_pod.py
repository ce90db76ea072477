"""The pod of one worker: the run's template, and what is this worker's own."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhctl.infra import ray_config
from dhctl.infra.kubernetes.mark import NODE_LABEL, WORKER, Mark
from dhctl.infra.kubernetes.node import worker
from dhctl.infra.kubernetes.node.pods import GRACE_S, LAUNCH_NOTE
from dhctl.infra.kubernetes.node.settings import IP_ENV, SECRET, PodSettings
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.node.layout import GCS_PORT, NodeFolder
from dhctl.infra.node.ray_head import AFTER_LEASE_S
from dhctl.infra.node.site import rays_own_env, start_options

LONGEST_DEADLINE_S = 2**31 - 1
"""What the API takes at most."""


def worker_pod(
    settings: PodSettings,
    node_id: str,
    launch: str,
    owners: Sequence[Mapping[str, Any]],
    start: Sequence[str],
) -> dict[str, Any]:
    """The body of POST pods. `start` is what `ray_words` gives.

    Kubernetes ends it a while after the lease even where nobody is left who would delete it.
    """
    body: dict[str, Any] = copy.deepcopy(dict(settings.worker_pod))
    mark, given = Mark(settings.run_id, settings.expires_at), body.get("metadata") or {}
    body["metadata"] = {
        **given,
        "name": node_id,
        "namespace": settings.namespace,
        "labels": {**(given.get("labels") or {}), **mark.pod_labels(WORKER), NODE_LABEL: node_id},
        "annotations": {**(given.get("annotations") or {}), LAUNCH_NOTE: launch},
        "ownerReferences": [dict(owner) for owner in owners],
    }
    spec = body["spec"]
    spec["restartPolicy"] = "Never"  # an id that Ray saw leave must not come back (ray#63424)
    spec["terminationGracePeriodSeconds"] = GRACE_S  # Ray as a container's first process hears no SIGTERM
    left_s = settings.expires_at + AFTER_LEASE_S - time.time()
    spec["activeDeadlineSeconds"] = min(max(1, int(left_s)), LONGEST_DEADLINE_S)
    container = spec["containers"][0]
    container["command"], container["args"] = list(start), []
    container["env"] = _env(container.get("env") or (), settings.run_id, node_id)
    return body


def _env(given: Sequence[Mapping[str, Any]], run_id: str, node_id: str) -> list[dict[str, Any]]:
    """The template's, and over it what Ray needs; the pod's address is there for the words of the command."""
    own = {RUN_ENV: run_id, **rays_own_env(Path(SECRET) / "token", node_id, ray_config.WORKER_KIND)}
    address = {"name": IP_ENV, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    kept = [dict(entry) for entry in given if entry["name"] not in own and entry["name"] != IP_ENV]
    return [address, *kept, *({"name": name, "value": value} for name, value in own.items())]


def ray_words(settings: PodSettings, folder: NodeFolder, head_address: str, options: Sequence[str]) -> list[str]:
    """The command of a worker's container. The kubelet puts the pod's address where $(POD_IP) stands."""
    ray = ["-u", "-m", "ray.scripts.scripts", *start_options(f"$({IP_ENV})", folder.ray_temp)]
    ray += ["--address", f"{head_address}:{GCS_PORT}", *(option.replace("$(", "$$(") for option in options)]
    text = Path(worker.__file__).read_text().replace("$(", "$$(")
    return [settings.python, "-u", "-c", text, f"{SECRET}/env.json", str(folder.path), *ray]
