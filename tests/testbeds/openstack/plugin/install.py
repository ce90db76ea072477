"""Puts the stand-in, or the official plugin, where the Pulumi CLI looks for `openstack` 5.5.1."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from testbeds.openstack.plugin.registry import NAME, VERSION

OFFICIAL_ENV = "DHCTL_TEST_OPENSTACK_PLUGIN"
"""Names an official plugin binary with which the tests shall run instead."""

BINARY = f"pulumi-resource-{NAME}"
TESTS = Path(__file__).parents[3]


def install(into: Path, python: str) -> Path:
    """Makes `<into>/resource-openstack-v5.5.1/pulumi-resource-openstack` and gives its path. Can be repeated.

    `into` is a folder of plugins (dhctl's `<home>/plugins`, a `$PULUMI_HOME/plugins`); `python` is the interpreter that
    runs the stand-in: it needs pulumi, grpcio and openstacksdk. `$DHCTL_TEST_OPENSTACK_PLUGIN` is used when set.
    """
    binary = into / f"resource-{NAME}-v{VERSION}" / BINARY
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.unlink(missing_ok=True)
    official = os.environ.get(OFFICIAL_ENV)
    if official:
        binary.symlink_to(Path(official).resolve(strict=True))
        return binary
    start = f"PYTHONPATH={shlex.quote(str(TESTS))} exec {shlex.quote(python)} -m {__package__}"
    binary.write_text(f'#!/bin/sh\n{start} "$@"\n')
    binary.chmod(0o755)
    return binary
