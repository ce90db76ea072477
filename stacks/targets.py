"""The one place where a target's name becomes its implementation."""

from __future__ import annotations

from typing import assert_never

from dhctl.infra.spec import TargetName
from dhctl.infra.target import Target


def target_for(name: TargetName) -> Target:
    """The target of this name."""
    match name:
        case TargetName.LOCAL:
            from dhctl.stacks.local.target import LocalTarget

            return LocalTarget()
        case TargetName.OPENSTACK:
            from dhctl.stacks.openstack.target import OpenStackTarget

            return OpenStackTarget()
        case TargetName.KUBERNETES:
            from dhctl.stacks.kubernetes.target import KubernetesTarget

            return KubernetesTarget()
        case _:
            assert_never(name)
