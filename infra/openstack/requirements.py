"""Which packages a node needs whose image has no Ray, pinned to what is installed beside dhctl."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhctl.infra.spec import RunSpec

ON_EVERY_NODE = ("ray", "openstacksdk", "boto3", "psutil")
"""Of dhctl's own requirements, those that nodes need; jobs that come with dhctl bring an extra."""

NEEDED_TOO = ("pyarrow",)
"""Ray Train's results on S3 go through it; an extra of dhctl pins it."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def requirements_for(spec: RunSpec) -> list[str]:
    """Pinned requirements of all nodes of a run, sorted."""
    from dhctl.ray_jobs.catalog import JOBS  # not on the nodes, which import this module with userdata.py

    extra = JOBS[spec.job.name].extra if spec.job.name else None
    return sorted(set(_wanted(requires("dhctl") or [], extra)))


def _wanted(stated: list[str], extra: str | None) -> Iterator[str]:
    for requirement in stated:
        body, _, marker = requirement.partition(";")
        name = _name(body)
        of_extra = _EXTRA.search(marker)
        ours = of_extra is None and name in ON_EVERY_NODE
        if ours or name in NEEDED_TOO or (of_extra is not None and of_extra[1] == extra):
            yield _pinned(body.strip())


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found[0].lower() if found else ""


def _pinned(requirement: str) -> str:
    """The installed version, or what dhctl states where the package is not installed here."""
    try:
        found = version(_name(requirement))
    except PackageNotFoundError:
        return requirement
    extras = re.search(r"\[[^\]]*\]", requirement)
    return f"{_name(requirement)}{extras[0] if extras else ''}=={found.partition('+')[0]}"
