"""What a node is told at its boot. It stands in user data, which anybody on the node and Pulumi's state can read: no
secret. Standard library only, and for the system's Python, which may be as old as 3.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

HEAD, WORKER = "head", "worker"
SEQUENCES = ("requirements", "security_group_ids", "ray_options")


@dataclass(frozen=True)
class NodeSettings:
    """One node of a run, and on the head the workers it may make. Times in seconds, `expires_at` since the epoch."""

    run_id: str
    name: str
    """The run's name for people."""
    role: str
    """HEAD or WORKER."""
    node_id: str
    """The server's name. A worker's is its id for Ray too; a head gets a new one at each start of Ray."""
    expires_at: int
    ray_version: str
    python: str | None = None
    """Interpreter of a prebaked image that has Ray and openstacksdk; by default looked for."""
    requirements: Sequence[str] = ()
    """Pinned, to install where no fitting Ray is found."""
    package_index: str | None = None
    gpus: int = 0
    """GPUs that this node must have."""
    login_user: str = "debian"

    min_workers: int = 0
    max_workers: int = 1
    worker_cpus: int = 1
    worker_gpus: int = 0
    worker_memory_bytes: int = 2 * 2**30
    idle_timeout_s: float = 60.0

    image_id: str = ""
    flavor_id: str = ""
    flavor_vcpus: int = 0
    flavor_ram_mib: int = 0
    network_id: str = ""
    security_group_ids: Sequence[str] = ()
    """Groups of the workers: the members' group."""
    key_name: str | None = None
    server_group_id: str | None = None
    availability_zone: str | None = None
    boot_volume_gib: int | None = None
    volume_type: str | None = None
    config_drive: bool = False

    head_address: str | None = None
    """Only on a worker, as the next two."""
    nonce: str | None = None
    """With it the worker gets code and secrets from the head, once."""
    ray_options: Sequence[str] = ()
    """Options of `ray start`: the size that the autoscaler asked for."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {k: list(v) if k in SEQUENCES else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> NodeSettings:
        """What `to_dict` wrote; engines may have turned whole numbers into floats. Raises TypeError on unknown keys."""
        whole: dict[str, Any] = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in body.items()}
        sequences = {k: tuple(v) for k, v in whole.items() if k in SEQUENCES}
        return cls(**{**whole, **sequences})

    def for_worker(self, node_id: str, head_address: str, nonce: str, ray_options: Sequence[str]) -> NodeSettings:
        """The settings of a worker that this head makes."""
        return replace(
            self,
            role=WORKER,
            node_id=node_id,
            gpus=self.worker_gpus,
            head_address=head_address,
            nonce=nonce,
            ray_options=tuple(ray_options),
        )
