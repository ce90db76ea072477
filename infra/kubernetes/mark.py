"""The ownership mark on Kubernetes: labels on every object, from its first moment. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dhctl.infra.mark import RUN_ID

RUN_LABEL, EXPIRES_LABEL, ROLE_LABEL = "dhctl/run", "dhctl/expires", "dhctl/role"
CLUSTER_LABEL, NODE_LABEL = "dhctl/cluster", "dhctl/node"
"""Only on pods of the Ray cluster: the first is what its NetworkPolicy and the head's service select by."""

HEAD, WORKER, LEASE, PROBE, RAY_CLUSTER = "head", "worker", "lease", "probe", "ray-cluster"


@dataclass(frozen=True)
class Mark:
    """Whose an object is, and until when it may live (epoch seconds; 0 where it does not tell)."""

    run_id: str
    expires_at: int = 0

    @property
    def selector(self) -> str:
        """Label selector of all objects of the run."""
        return f"{RUN_LABEL}={self.run_id}"

    def labels(self, role: str) -> dict[str, str]:
        """Labels of one of the run's objects."""
        return {RUN_LABEL: self.run_id, EXPIRES_LABEL: str(self.expires_at), ROLE_LABEL: role}

    def pod_labels(self, role: str) -> dict[str, str]:
        """Labels of a pod of the Ray cluster."""
        return {**self.labels(role), CLUSTER_LABEL: self.run_id}

    def name(self, part: str) -> str:
        """Name of one of the run's objects; the run object's is the run id itself."""
        return f"{self.run_id}-{part}"

    @classmethod
    def from_labels(cls, labels: Mapping[str, str] | None) -> Self | None:
        """The mark in the labels of an object, or None."""
        run_id = (labels or {}).get(RUN_LABEL, "")
        if not RUN_ID.fullmatch(run_id):
            return None
        expires = (labels or {}).get(EXPIRES_LABEL, "")
        return cls(run_id, int(expires) if expires.isdigit() else 0)
