"""This checkout and the Python that runs it, in a pod: with them an image needs nothing of dhctl or of Ray.

They are mounted read-only from the node, which is this machine, at the very paths that they have here. A pod with
hostPath volumes is refused where Pod Security is enforced at `baseline` or `restricted`: there they come by claims.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from testbeds.kubernetes.cluster import EXISTING_CLASS
from testbeds.kubernetes.layout import HERE
from testbeds.kubernetes.provisioner import PATH

CHECKOUT = HERE.parents[2]
PYTHON = str(Path(sys.prefix) / "bin" / "python")
"""The interpreter to start in the pod."""


def folders() -> list[Path]:
    """The checkout, the virtual environment and its base, without those that lie in another."""
    base = Path(sys.base_prefix)
    wanted = {CHECKOUT, Path(sys.prefix), base, base.resolve()}
    # An interpreter may be a link to a link, from a folder with a shorter version number say.
    link = Path(PYTHON)
    while link.is_symlink():
        link = link.parent / link.readlink()
        wanted.add(link.parent.parent)
    return sorted(one for one in wanted if not any(one != other and one.is_relative_to(other) for other in wanted))


def project_volumes() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, str]]]:
    """Volumes, volumeMounts and env for a pod, in which `PYTHON` then runs dhctl and Ray."""
    paths = {f"project-{number}": str(path) for number, path in enumerate(folders())}
    volumes = [{"name": name, "hostPath": {"path": path, "type": "Directory"}} for name, path in paths.items()]
    mounts = [{"name": name, "mountPath": path, "readOnly": True} for name, path in paths.items()]
    path = f"{Path(PYTHON).parent}:/usr/local/bin:/usr/bin:/bin"
    return volumes, mounts, [{"name": "PATH", "value": path}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}]


def claimed_volumes() -> list[dict[str, Any]]:
    """The volumes of `project_volumes`, by the same names, as claims that come and go with their pod."""
    return [_claimed(volume["name"], volume["hostPath"]["path"]) for volume in project_volumes()[0]]


def _claimed(name: str, path: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadOnlyMany"],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": EXISTING_CLASS,
    }
    template = {"metadata": {"annotations": {PATH: path}}, "spec": spec}
    return {"name": name, "ephemeral": {"volumeClaimTemplate": template}}
