"""Reads of admission: what a tenant may not read is not told, and no reason to refuse a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import Cluster, api_errors, patiently, status_of

NOT_TOLD = "not told by the cluster"
PATIENCE_S = 10.0
"""How long a look is repeated while the server is in trouble."""


@dataclass(frozen=True)
class Seen:
    """An answer. `body` is None where there is no such thing, or the caller may not read it."""

    body: dict[str, Any] | None
    status: int = 200

    @property
    def absent(self) -> bool:
        """Whether it is certain that there is no such thing."""
        return self.status == 404

    @property
    def items(self) -> list[dict[str, Any]] | None:
        """Of a list; None where the caller may not read it."""
        return None if self.body is None else list(self.body.get("items") or ())


def look(cluster: Cluster, path: str, query: Sequence[tuple[str, str]] = ()) -> Seen:
    """One read. Raises ClusterApiError where it is neither answered nor refused."""
    with api_errors(f"read {path}"):
        try:
            return Seen(patiently(lambda: cluster.call("GET", path, query=query), PATIENCE_S))
        except ApiException as error:
            if status_of(error) not in (403, 404):
                raise
            return Seen(None, status_of(error))
