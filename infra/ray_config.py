"""What Ray's autoscaler is told about a cluster, the same on every target. Standard library only: nodes read it too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

HEAD_KIND, WORKER_KIND = "head", "worker"
NEVER_REACHED = 1000
"""max_workers in Ray's own configuration, far above any sum of requests: autoscaler v2 starts nothing at all when the
sum of all jobs' requests exceeds it (ray#62984). The real limit is enforced by the provider."""

DEMAND_EVERY_MS, ANSWERS_PER_S = 200, 1000
"""Between two questions of Ray's control service to each raylet what its tasks wait for: Ray's own pause is 1 s, and
half of that a worker was late. And how many answers a second that may cost at most, in a large cluster."""

_EMPTY_LISTS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


class WorkerGroup(Protocol):
    """What of a cluster's settings the autoscaler needs. Memory in bytes."""

    @property
    def run_id(self) -> str:
        """The run."""

    @property
    def min_workers(self) -> int:
        """Workers that are kept even when idle."""

    @property
    def max_workers(self) -> int:
        """Workers at most."""

    @property
    def worker_cpus(self) -> int:
        """CPU cores of each worker."""

    @property
    def worker_gpus(self) -> int:
        """GPUs of each worker."""

    @property
    def worker_memory_bytes(self) -> int:
        """Memory of each worker, its object store included."""

    @property
    def idle_timeout_s(self) -> float:
        """After this long without work a worker leaves."""


def autoscaling_config(group: WorkerGroup, provider: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's cluster configuration. With `type: external` each key must be there, or the autoscaler ends in KeyError.

    `provider` names the class (`module`) and whatever that class needs.
    """
    object_store = min(max(group.worker_memory_bytes // 4, 80 * 2**20), 2 * 2**30)
    resources = {
        "CPU": group.worker_cpus,
        "GPU": group.worker_gpus,
        "memory": group.worker_memory_bytes - object_store,
        "object_store_memory": object_store,
    }
    worker = {"resources": resources, "node_config": {}, "min_workers": group.min_workers}
    return {
        "cluster_name": group.run_id,
        "max_workers": NEVER_REACHED,
        "upscaling_speed": 1000,
        "idle_timeout_minutes": group.idle_timeout_s / 60,
        "provider": {
            "type": "external",
            "disable_node_updaters": True,  # else Ray tries to install itself over SSH
            "disable_launch_config_check": True,
            **provider,
        },
        "head_node_type": HEAD_KIND,
        "available_node_types": {
            HEAD_KIND: {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
            WORKER_KIND: {**worker, "max_workers": NEVER_REACHED},
        },
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in _EMPTY_LISTS},
        "file_mounts_sync_continuously": False,
    }


def own_env(token: Path, ray_id: str, kind: str) -> dict[str, str]:
    """What Ray's processes of head and workers must find in their environment; `token` is the file that holds it."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": ray_id,
        "RAY_NODE_TYPE_NAME": kind,
    }


def head_env(group: WorkerGroup) -> dict[str, str]:
    """What the head's must find there besides."""
    every_ms = max(DEMAND_EVERY_MS, 1000 * group.max_workers // ANSWERS_PER_S)
    return {"RAY_gcs_pull_resource_loads_period_milliseconds": str(every_ms)}


def node_options(group: WorkerGroup, resources: Mapping[str, float], labels: Mapping[str, str] | None) -> list[str]:
    """Options of `ray start` for a worker with what the autoscaler asks for; sizes it leaves open are the group's."""
    rest = dict(resources)
    cpus, gpus = int(rest.pop("CPU", group.worker_cpus)), int(rest.pop("GPU", group.worker_gpus))
    options = ["--num-cpus", str(cpus), "--num-gpus", str(gpus)]
    for name, option in (("memory", "--memory"), ("object_store_memory", "--object-store-memory")):
        if name in rest:
            options += [option, str(int(rest.pop(name)))]
    options += ["--resources", json.dumps(rest)]
    return [*options, "--labels", ",".join(f"{k}={v}" for k, v in labels.items())] if labels else options
