"""The Python in which Ray runs on a node: one of the image when its versions fit, else one installed at boot by uv.

Standard library only, and for the system's Python.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhctl.infra.openstack.node.console import LOG_LIMIT, NodeConsole
from dhctl.infra.openstack.node.layout import INSTALLED
from dhctl.infra.openstack.node.package_index import PackageIndexError, fetch_uv
from dhctl.infra.openstack.node.settings import NodeSettings

BAKED = ("/opt/dhctl/bin/python", "/opt/ray/bin/python")
"""Where prebaked images have it (docs/openstack.md)."""

LOOK_S = 60.0
INSTALL_S = 1500.0
OLDEST, NEWEST = (3, 11), (3, 13)
"""Pythons for which both dhctl and Ray's wheels are made."""

FALLBACK = "3.12"
NEXT_STEP = "bake an image with Ray (docs/openstack.md) or set openstack.package_index to one that nodes can reach"
LOOK = """
import json, sys
from importlib.metadata import version
version("openstacksdk")
print(json.dumps([version("ray"), list(sys.version_info[:2])]))
"""
"""Importing Ray and openstacksdk would take seconds; one that cannot be imported is told by the log of Ray's start."""


class BootError(Exception):
    """A node that cannot work: a sentence with a next step, and the last lines of what was tried."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.reason, self.log = reason, log[-LOG_LIMIT:]


@dataclass(frozen=True)
class Found:
    """An interpreter that was looked at; `ray` is empty where it has none, `problem` says why it does not fit."""

    path: str
    ray: str = ""
    problem: str = ""


def find_python(settings: NodeSettings, console: NodeConsole) -> Found:
    """The first interpreter that fits, installed when there is none. Raises BootError."""
    looked = []
    for path in _candidates(settings.python):
        found = look_at(path, settings.ray_version)
        if not found.problem:
            return found
        looked.append(f"{path}: {found.problem}")
    if settings.python:
        told = f"openstack.python does not fit: {looked[0]}"
        raise BootError(f"{told}; name an interpreter with Ray {settings.ray_version} and openstacksdk")
    console.tell("installing", what=f"Ray {settings.ray_version}, because {'; '.join(looked) or 'no Python has it'}")
    install(settings)
    found = look_at(f"{INSTALLED}/bin/python", settings.ray_version)
    if found.problem:
        raise BootError(f"what was installed does not fit: {found.problem}; {NEXT_STEP}")
    return found


def _candidates(given: str | None) -> Iterator[str]:
    if given:
        yield given
        return
    on_path = shutil.which("python3")
    for path in (*BAKED, *((on_path,) if on_path else ())):
        if Path(path).exists():
            yield path


def look_at(path: str, ray_version: str) -> Found:
    """Asks an interpreter for its own version and Ray's."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        asked = subprocess.run(
            [path, "-c", LOOK], capture_output=True, text=True, timeout=LOOK_S, check=False, env=env, cwd="/"
        )
        ray, python = json.loads(asked.stdout.splitlines()[-1])
    except OSError as error:
        return Found(path, problem=f"cannot be run ({error.strerror})")
    except subprocess.TimeoutExpired:
        return Found(path, problem=f"did not answer within {LOOK_S:.0f} s")
    except (ValueError, IndexError):
        lines = asked.stderr.strip().splitlines()
        return Found(path, problem=lines[-1][:200] if lines else f"ended with status {asked.returncode}")
    if ray != ray_version:
        return Found(path, ray, f"has Ray {ray}, not {ray_version}")
    if tuple(python) < OLDEST:
        return Found(path, ray, f"is Python {python[0]}.{python[1]}, older than {OLDEST[0]}.{OLDEST[1]}")
    return Found(path, ray)


def install(settings: NodeSettings) -> None:
    """Makes /opt/dhctl with everything in `settings.requirements`. Raises BootError with uv's last lines."""
    try:
        uv = shutil.which("uv") or str(fetch_uv(settings.package_index, Path(f"{INSTALLED}-uv"), platform.machine()))
    except PackageIndexError as error:
        raise BootError(f"uv could not be fetched: {error}; {NEXT_STEP}") from error
    fits = OLDEST <= sys.version_info[:2] <= NEWEST
    _run([uv, "venv", "--clear", "--python", sys.executable if fits else FALLBACK, INSTALLED], "make an environment")
    command = [uv, "pip", "install", "--python", f"{INSTALLED}/bin/python", "--no-progress"]
    if settings.package_index:
        command += ["--index-url", settings.package_index]
    _run([*command, *settings.requirements], "install Ray")


def _run(command: Sequence[str], doing: str) -> None:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        log = error.output.decode(errors="replace") if isinstance(error.output, bytes) else str(error.output or "")
        raise BootError(f"cannot {doing}: not done after {INSTALL_S:.0f} s; {NEXT_STEP}", log) from error
    except OSError as error:
        raise BootError(f"cannot {doing}: {error}; {NEXT_STEP}") from error
    if done.returncode:
        raise BootError(f"cannot {doing}: uv ended with status {done.returncode}; {NEXT_STEP}", done.stdout)
