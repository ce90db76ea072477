"""What a head's pod is told: a file of the run object, which everybody in the namespace can read. No secret."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

SETTINGS, SETTINGS_ENV = "/etc/dhctl/settings.json", "DHCTL_NODE_SETTINGS"
SECRET, SECRET_ENV = "/etc/dhctl/secret", "DHCTL_NODE_SECRET"
"""Folder of the run's secret, in the pods of head and workers: the files `token` and `env.json`."""

IP_ENV = "POD_IP"
"""Holds the address of head and workers."""

UNSCHEDULABLE_S = 60.0


@dataclass(frozen=True)
class PodSettings:
    """One run. Times in seconds, `expires_at` since the epoch; sizes in bytes."""

    run_id: str
    name: str
    """The run's name for people."""
    namespace: str
    node_id: str
    """Name of the head's pod. Ray gets a new id at each start of its head."""
    expires_at: int
    worker_pod: Mapping[str, Any]
    """The complete pod of a worker but for what `worker_pod.worker_pod` fills in."""

    min_workers: int = 0
    max_workers: int = 1
    worker_cpus: int = 1
    worker_gpus: int = 0
    worker_memory_bytes: int = 2 * 2**30
    idle_timeout_s: float = 60.0
    head_memory_bytes: int = 2 * 2**30
    python: str = "python"
    """Interpreter of the image that has Ray and the package kubernetes."""
    unschedulable_s: float = UNSCHEDULABLE_S
    """A pod for which there is no place, or no image, for this long is given up."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; engines may have turned whole numbers into floats. Raises TypeError on unknown keys."""
        return cls(**_whole(body))

    @classmethod
    def here(cls) -> Self:
        """This pod's. Raises OSError and ValueError when there are none, or no whole ones."""
        return cls.from_dict(json.loads(Path(os.environ.get(SETTINGS_ENV, SETTINGS)).read_text()))


def secret_folder() -> Path:
    """Where the run's secret is mounted in this pod."""
    return Path(os.environ.get(SECRET_ENV, SECRET))


def _whole(value: Any) -> Any:
    """Kubernetes takes no 1000.0 for a whole number."""
    if isinstance(value, Mapping):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
