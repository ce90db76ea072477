"""Whether a node has the GPUs that its flavor promised. Standard library only, and for the system's Python."""

from __future__ import annotations

import shutil
import subprocess

from dhctl.infra.openstack.node.python_for_ray import BootError

LOOK_S = 60.0
"""nvidia-smi's first call after a boot loads the driver."""


def require_gpus(want: int) -> int:
    """The number of GPUs that the driver shows. Raises BootError when they are fewer than wanted."""
    if want == 0:
        return 0
    if not shutil.which("nvidia-smi"):
        raise BootError(
            f"workers.gpus is {want} and the image has no NVIDIA driver (no nvidia-smi); "
            "use an image with the driver (docs/openstack.md) and a flavor with GPUs"
        )
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_S, check=False)
    except subprocess.TimeoutExpired as error:
        told = f"nvidia-smi does not answer within {LOOK_S:.0f} s"
        raise BootError(f"{told}: driver and GPU do not fit; use an image with a newer driver") from error
    if asked.returncode:
        raise BootError(
            f"workers.gpus is {want} and nvidia-smi finds no working driver or no GPU; "
            "check that openstack.flavor has GPUs and that the image's driver fits them",
            asked.stdout + asked.stderr,
        )
    have = sum(line.strip().isdigit() for line in asked.stdout.splitlines())
    if have < want:
        raise BootError(f"workers.gpus is {want} and the flavor gives {have}; lower it or use a flavor with {want}")
    return have
