"""Debian packages of a testbed: which are missing, and installing them without starting any daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from testbeds.errors import TestbedError

INSTALL_LIMIT_S = 900


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Those of `packages` that are installed, and their versions."""
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n", *packages)
    if shutil.which(query[0]) is None:
        return {}
    # A package that was never heard of makes the exit code 1 and no line.
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout
    rows = (line.split() for line in answer.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}


def missing(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that are not installed."""
    have = versions(packages)
    return [name for name in packages if name not in have]


def install(packages: Sequence[str], verb: str) -> list[str]:
    """Installs what is missing; its names. `verb` is what installs a testbed: it is named to those who are not root.

    Raises TestbedError with apt's last lines.
    """
    wanted = missing(packages)
    if not wanted:
        return []
    if os.geteuid() != 0:
        raise TestbedError(f"packages are missing ({', '.join(wanted)}); install them as root: {verb}")
    if shutil.which("apt-get") is None:
        raise TestbedError(
            "this machine has no apt-get; the testbed is made of Debian 12's packages, use such a machine"
        )
    with _no_daemons():
        _apt("update", "-q")
        # Unsafe is dpkg's word for not calling fsync for each file: on a machine of tests that is only quicker.
        options = ("Dpkg::Options::=--force-confold", "Dpkg::Options::=--force-unsafe-io", "Dpkg::Use-Pty=0")
        _apt("install", "-q", "-y", "--no-install-recommends", *(f"-o{option}" for option in options), *wanted)
    return wanted


class _no_daemons:  # noqa: N801  reads as a phrase
    """No maintainer script starts a daemon meanwhile. A rule that the machine has already is left alone."""

    path = Path("/usr/sbin/policy-rc.d")

    def __enter__(self) -> None:
        self.ours = not self.path.exists()
        if self.ours:
            self.path.write_text("#!/bin/sh\nexit 101\n")
            self.path.chmod(0o755)

    def __exit__(self, *exc: object) -> None:
        if self.ours:
            self.path.unlink(missing_ok=True)


def _apt(*arguments: str) -> None:
    env = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        done = subprocess.run(
            ("apt-get", *arguments),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise TestbedError(f"apt-get {arguments[0]} took longer than {INSTALL_LIMIT_S} s; try again") from late
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise TestbedError(f"apt-get {arguments[0]} failed (exit {done.returncode}); mend this and try again:\n{tail}")
