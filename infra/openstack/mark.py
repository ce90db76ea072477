"""The ownership mark on OpenStack: how each kind of resource carries the run's id and its expiry, and how it is read.

Networks, subnets, routers, ports, floating IPs, security groups: neutron tags `dhctl-run=<run id>` and
`dhctl-expires=<epoch s>`, and the same in the description, which is there from the first moment. Servers and volumes:
metadata `dhctl_run`, `dhctl_expires`, `dhctl_role`. Keypairs, server groups and application credentials have neither:
their name `<run id>-...` is the mark, and the credential's description tells the expiry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from dhctl.infra.mark import RUN_ID

RUN_KEY, EXPIRES_KEY, ROLE_KEY, NODE_KEY = "dhctl_run", "dhctl_expires", "dhctl_role", "dhctl_node"
RUN_TAG, EXPIRES_TAG = "dhctl-run=", "dhctl-expires="
HEAD, WORKER = "head", "worker"

_NAME = re.compile(rf"({RUN_ID.pattern})-")
_TOLD_EXPIRY = re.compile(rf"{EXPIRES_TAG}(\d+)")


@dataclass(frozen=True)
class Mark:
    """Whose a resource is, and until when it may live (epoch seconds; 0 where the resource does not tell)."""

    run_id: str
    expires_at: int = 0

    @property
    def tags(self) -> list[str]:
        """Neutron tags."""
        return [f"{RUN_TAG}{self.run_id}", f"{EXPIRES_TAG}{self.expires_at}"]

    @property
    def text(self) -> str:
        """For a description."""
        return " ".join(self.tags)

    def metadata(self, role: str) -> dict[str, str]:
        """Metadata of a server or volume."""
        return {RUN_KEY: self.run_id, EXPIRES_KEY: str(self.expires_at), ROLE_KEY: role}

    def name(self, part: str) -> str:
        """Name of one of the run's resources."""
        return f"{self.run_id}-{part}"

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> Self | None:
        """The mark in neutron tags, or None."""
        told = list(tags)
        runs = [tag.removeprefix(RUN_TAG) for tag in told if tag.startswith(RUN_TAG)]
        if not runs or not RUN_ID.fullmatch(runs[0]):
            return None
        return cls(runs[0], _expiry(" ".join(told)))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None) -> Self | None:
        """The mark in the metadata of a server or volume, or None."""
        run_id = (metadata or {}).get(RUN_KEY, "")
        if not RUN_ID.fullmatch(run_id):
            return None
        expires = (metadata or {}).get(EXPIRES_KEY, "")
        return cls(run_id, int(expires) if expires.isdigit() else 0)

    @classmethod
    def from_name(cls, name: str | None, description: str | None = None) -> Self | None:
        """The mark in a name, for kinds that have nothing else; or None."""
        found = _NAME.match(name or "")
        return cls(found[1], _expiry(description or "")) if found else None


def _expiry(text: str) -> int:
    found = _TOLD_EXPIRY.search(text)
    return int(found[1]) if found else 0
