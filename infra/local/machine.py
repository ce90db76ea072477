"""What this machine can hold: cores, memory, GPUs, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from dhctl.infra.home import nearest_existing

HEAD_MEMORY_BYTES = 900 * 2**20
"""Proportional set size of a head, measured (docs/benchmarks.md)."""

NVIDIA_SMI_S = 8.0
"""How long nvidia-smi may take: the first call after a boot loads the driver."""


@dataclass(frozen=True)
class Machine:
    """Capacity that is free for a run now. Memory and disk in bytes."""

    cpus: int
    memory_bytes: int
    gpus: int
    disk_bytes: int


def look(folder: Path) -> Machine:
    """This machine's capacity, with the disk on which `folder` lies or would lie."""
    existing = nearest_existing(folder)
    memory = min(psutil.virtual_memory().available, _cgroup_memory_bytes())
    return Machine(usable_cpus(), memory, len(gpu_indices()), shutil.disk_usage(existing).free)


def usable_cpus() -> int:
    """Cores this process may use: its affinity, and the quota of its control group (version 2)."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus  # no quota is set here
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


def _cgroup_memory_bytes() -> int:
    """Memory the control group (version 2) still grants; the machine's own where there is no limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        limit, used = "max", 0
    return psutil.virtual_memory().total if limit == "max" else max(0, int(limit) - used)


@cache
def gpu_indices() -> tuple[int, ...]:
    """Indices of NVIDIA GPUs that this process may use (CUDA_VISIBLE_DEVICES respected where it lists numbers)."""
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ()  # it hangs when the driver is broken
    if listed.returncode:
        return ()  # the tool is there, a driver is not
    present = [int(line) for line in listed.stdout.splitlines() if line.strip().isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(present)
    listed_here = [word.strip() for word in visible.split(",")]
    return tuple(index for index in present if str(index) in listed_here)


def choose_gpus(present: Sequence[int], used: Sequence[Sequence[int]], count: int) -> list[int]:
    """The first `count` GPUs that no living worker has. Raises ValueError when fewer are free."""
    free = [index for index in present if not any(index in taken for taken in used)]
    if len(free) < count:
        raise ValueError(f"a worker needs {count} GPUs and {len(free)} of {len(present)} are free")
    return free[:count]
