"""The part of a spec that only target kubernetes reads."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator

from dhctl.infra.spec_base import Frozen, Name
from dhctl.infra.units import Size

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_QUANTITY = re.compile(r"\d+(\.\d+)?m?")


class RayMode(StrEnum):
    """Who makes Ray's pods."""

    AUTO = "auto"
    """KubeRay's operator where the cluster serves ray.io/v1 and you may make a RayCluster, else dhctl."""
    PODS = "pods"
    """dhctl: a head's pod, whose autoscaler makes the workers'."""
    KUBERAY = "kuberay"
    """KubeRay's operator, from a RayCluster."""


class KubernetesSection(Frozen):
    """Only for target kubernetes. Who you are comes from KUBECONFIG, as for kubectl."""

    context: str | None = None
    """Context of the kubeconfig; by default its current one."""
    site: Name | None = None
    """Where the cluster stands; needed for data with a `residency`."""
    namespace: str | None = Field(default=None, pattern=_DNS_LABEL)
    """An existing namespace, which is never deleted; by default one is made for the run and deleted with it."""
    ray: RayMode = RayMode.AUTO
    """Who makes Ray's pods: `pods` dhctl itself, `kuberay` KubeRay's operator; `auto` takes KubeRay where you may."""
    image: str | None = Field(default=None, min_length=1)
    """Container image with Ray of dhctl's version and the package kubernetes (docs/kubernetes.md, "Image")."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets of the namespace with which the image is pulled."""
    python: str = "python"
    """Interpreter in the image that has Ray and the package kubernetes."""
    head_cpus: str = "1"
    """CPU that the head's pod asks for, as Kubernetes writes it: 1 or 500m."""
    head_memory: Size = Field(default=4 * 2**30, ge=2**29, json_schema_extra={"default": "4GiB"})
    """Memory that the head's pod asks for and may use at most; drivers of jobs run in it."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the extended resource that a GPU is at this site."""
    user_id: int = Field(default=1000, ge=1, le=2**31 - 1)
    """Numeric user of all containers; never root."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes on which the pods may run."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of the pods, as Kubernetes writes them."""
    priority_class: str | None = None
    """Priority class of the pods."""
    runtime_class: str | None = None
    """Runtime class of the pods, such as nvidia."""
    service_account: str | None = Field(default=None, pattern=_DNS_LABEL)
    """An existing service account for the head, with the rights of docs/kubernetes.md; by default one is made."""
    volumes: tuple[dict[str, Any], ...] = ()
    """Volumes of all pods, as Kubernetes writes them."""
    volume_mounts: tuple[dict[str, Any], ...] = ()
    """Where these are mounted in the containers, as Kubernetes writes it."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of all containers; no secrets."""
    data_volume: Size | None = Field(default=None, ge=2**20)
    """Makes a claim of this size, mounted in all pods at /data and deleted with the run."""
    storage_class: str | None = None
    """Storage class of the claim; by default the cluster's."""
    strict_network: bool = False
    """Refuses a cluster that does not enforce NetworkPolicy, instead of saying so."""

    @property
    def by_kuberay(self) -> bool:
        """Whether KubeRay's operator makes Ray's pods."""
        return self.ray is RayMode.KUBERAY

    def has_folder(self, path: str) -> bool:
        """Whether pods find this folder in one of the spec's mounts. The claim at /data goes with the run."""
        mounts = [str(mount.get("mountPath", "")).rstrip("/") for mount in self.volume_mounts]
        return any(mount and f"{path}/".startswith(f"{mount}/") for mount in mounts)

    @field_validator("head_cpus", mode="before")
    @classmethod
    def _quantity(cls, value: object) -> object:
        text = str(value) if isinstance(value, int | float) else value
        if isinstance(text, str) and not _QUANTITY.fullmatch(text):
            raise ValueError(f"{text!r} is no amount of CPU; write 1 or 500m")
        return text

    @field_validator("image_pull_secrets", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("volumes", "volume_mounts")
    @classmethod
    def _named(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for item in value:
            if not isinstance(item.get("name"), str):
                raise ValueError("each one needs a name; write it as in a pod, such as {name: scans, hostPath: ...}")  # noqa: TRY004 - what Pydantic turns into a sentence
        return value
