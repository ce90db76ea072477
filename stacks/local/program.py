"""The Pulumi program of the local target."""

from __future__ import annotations

from typing import Any

import pulumi

from dhctl.infra.local.nodes import ClusterSettings
from dhctl.stacks.local.resources import HeadNode, RunFolderResource, TokenSecret


def declare(settings: ClusterSettings) -> dict[str, Any]:
    """Run folder, then token, then head; outputs `address`, `ports` and, as a secret, `token`."""
    folder = RunFolderResource("run-folder", settings)
    token = TokenSecret("token", settings, pulumi.ResourceOptions(depends_on=[folder]))
    head = HeadNode("head", settings, pulumi.ResourceOptions(depends_on=[token]))
    return {"address": head.address, "ports": head.ports, "token": pulumi.Output.secret(token.token)}
