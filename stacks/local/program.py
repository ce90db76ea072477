"""The Pulumi program of the local target."""

from __future__ import annotations

import pulumi

from dhctl.infra.local.nodes import ClusterSettings
from dhctl.stacks.local.resources import HeadNode, RunFolderResource, TokenSecret


def declare(settings: ClusterSettings) -> None:
    """Run folder, then token, then head; outputs `address`, `ports` and, as a secret, `token`."""
    folder = RunFolderResource("run-folder", settings)
    token = TokenSecret("token", settings, pulumi.ResourceOptions(depends_on=[folder]))
    head = HeadNode("head", settings, pulumi.ResourceOptions(depends_on=[token]))
    pulumi.export("address", head.address)
    pulumi.export("ports", head.ports)
    pulumi.export("token", pulumi.Output.secret(token.token))
