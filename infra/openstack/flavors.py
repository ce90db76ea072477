"""What a flavor tells of its size. GPUs stand in its extra specs, in one of several ways, or are not told at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RESOURCE = re.compile(r"resources[\w-]*:(\w+)")
_GPU_CLASS = re.compile(r"VGPU|PGPU|CUSTOM_\w*GPU\w*")
_GPU_ALIAS = re.compile(
    r"gpu|nvidia|tesla|quadro|rtx|geforce|(^|[-_ ])(gtx|[avphbl]\d{1,3}s?|gh200|t4|k80|mi\d{2,3}x?)([-_ ]|$)",
    re.IGNORECASE,
)
"""Operators choose these names; those of GPUs are called after what they are. Anything else may be a network card."""


@dataclass(frozen=True)
class FlavorSize:
    """One flavor. `disk_gib` 0: the server's disk is as large as the image. `gpus` None: the flavor does not tell."""

    name: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    gpus: int | None = None

    @classmethod
    def of(cls, flavor: Any) -> FlavorSize:
        """From the SDK's resource."""
        return cls(
            name=str(flavor.name),
            vcpus=int(flavor.vcpus),
            ram_mib=int(flavor.ram),
            disk_gib=int(flavor.disk or 0),
            gpus=gpus_told(flavor.extra_specs or {}),
        )


@dataclass(frozen=True)
class Flavors:
    """The two flavors of a run."""

    head: FlavorSize
    worker: FlavorSize


def gpus_told(extra_specs: Mapping[str, str]) -> int | None:
    """GPUs of each server, by placement resources or PCI aliases; None when no extra spec speaks of any."""
    counts: list[int] = []
    for key, value in extra_specs.items():
        resource = _RESOURCE.fullmatch(key)
        if resource and _GPU_CLASS.fullmatch(resource[1]) and str(value).isdigit():
            counts.append(int(value))
        elif key == "pci_passthrough:alias":
            counts += _aliases(str(value))
    return sum(counts) if counts else None


def _aliases(text: str) -> list[int]:
    """Counts in `a100:2,nic:1` of what is named like a GPU."""
    pairs = (alias.strip().partition(":") for alias in text.split(","))
    return [int(count) for name, _, count in pairs if _GPU_ALIAS.search(name) and count.strip().isdigit()]
