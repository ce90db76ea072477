"""What this machine has and lacks for running dhctl, engine first, then each target. Writes nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dhctl.infra.engine_install import candidates, ways
from dhctl.infra.home import Home, nearest_existing
from dhctl.infra.local import machine
from dhctl.infra.units import format_size
from dhctl.ray_jobs.catalog import JOBS


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `needed` says that nothing works without it."""

    area: str
    what: str
    ok: bool
    needed: bool
    told: str


def examine(home: Home) -> list[Finding]:
    """Everything, in the order in which a user would mend it."""
    return [*_engine(home), *_target_local(home), *_target_openstack(home), *_target_kubernetes(home), *_jobs()]


def _engine(home: Home) -> Iterator[Finding]:
    found = candidates(home.root)
    used = next((c for c in found if c.usable), None)
    for candidate in found:
        told = f"{candidate.version or 'no version'}, from {candidate.origin}"
        told += f"; {candidate.why}" if candidate.why else "; used" if candidate is used else "; not needed"
        yield Finding("engine", str(candidate.path), candidate.usable, False, told)
    if used is None:
        yield Finding("engine", "Pulumi CLI", False, True, f"version {metadata.version('pulumi')} is found nowhere")
        for way in ways(home.root):
            yield Finding("engine", f"way to install: {way.name}", way.ready, False, way.why)


def _target_local(home: Home) -> Iterator[Finding]:
    existing = nearest_existing(home.root)
    yield Finding("local", "Linux", platform.system() == "Linux", True, platform.platform())
    ray = _installed("ray")
    yield Finding("local", "Ray", ray is not None, True, ray or "not installed; install dhctl again")
    compiled, how = _bytecode("ray")
    yield Finding("local", "Ray's bytecode", compiled, False, how)
    yield Finding("local", "state folder", os.access(existing, os.W_OK), True, str(home.root))
    here = machine.look(home.root)
    size = f"{here.cpus} cores, {format_size(here.memory_bytes)} memory free, {here.gpus} GPUs"
    yield Finding("local", "machine", True, False, f"{size}, {format_size(here.disk_bytes)} disk free")


def _target_openstack(home: Home) -> Iterator[Finding]:
    """None of it is needed by a user of another target."""
    ssh, version = shutil.which("ssh"), metadata.version("pulumi-openstack")
    yield Finding("openstack", "ssh", ssh is not None, False, ssh or "not on PATH; install the OpenSSH client")
    plugin = home.plugins / f"resource-openstack-v{version}"
    there = plugin.is_dir()
    told = str(plugin) if there else f"version {version} is downloaded by Pulumi at the first run"
    yield Finding("openstack", "Pulumi's provider plugin", there, False, told)
    named = os.environ.get("OS_CLOUD") or os.environ.get("OS_AUTH_URL")
    told = named or "neither OS_CLOUD nor OS_AUTH_URL is set; openstack.cloud of a spec may name the cloud"
    yield Finding("openstack", "credentials", bool(named), False, told)


def _target_kubernetes(home: Home) -> Iterator[Finding]:
    """Whether there is a way to a cluster; whether it is open is asked by `dhctl plan`."""
    from dhctl.infra.kubernetes.client import ClusterApiError, connect
    from dhctl.infra.kubernetes.network import UNKNOWN, newest_finding
    from dhctl.infra.kubernetes.section import KubernetesSection

    try:
        cluster = connect(KubernetesSection())
    except ClusterApiError as error:
        yield Finding("kubernetes", "kubeconfig", False, False, str(error))
        return
    yield Finding("kubernetes", "kubeconfig", True, False, f"context {cluster.context} at {cluster.host}")
    network = newest_finding(home, cluster.host)
    enforced, told = (network.enforced, network.text) if network else (False, UNKNOWN)
    yield Finding("kubernetes", "NetworkPolicy", enforced, False, told)


def _bytecode(package: str) -> tuple[bool, str]:
    """Whether it is compiled once and not by each process: Ray has some twenty, which start twice as fast then."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return False, f"{package} is not installed"
    if Path(importlib.util.cache_from_source(found.origin)).exists():
        return True, "compiled"
    folder = Path(found.origin).parent
    if not sys.dont_write_bytecode and os.access(folder, os.W_OK):
        return True, "compiled by the first process"
    why = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else f"{folder} cannot be written"
    return False, f"none, and {why}: each process compiles anew; run {sys.executable} -m compileall -q {folder.parent}"


def _installed(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _jobs() -> Iterator[Finding]:
    for job in JOBS.values():
        missing = [m for m in job.needs if importlib.util.find_spec(m) is None]
        told = f"missing {', '.join(missing)}; pip install 'dhctl[{job.extra}]'" if missing else job.summary
        yield Finding("jobs", job.name, not missing, False, told)
