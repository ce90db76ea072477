"""What `up` would make on Kubernetes, for `dhctl plan`."""

from __future__ import annotations

from collections.abc import Iterator

from dhctl.infra.spec import RunSpec
from dhctl.infra.target import PlannedResource
from dhctl.infra.units import format_duration, format_size

KUBERAY = "KubeRay"


def resources(spec: RunSpec) -> list[PlannedResource]:
    """Everything, with who makes it. No call to the cluster."""
    return [*_basics(spec), *_access(spec), *_head(spec), *_workers(spec)]


def _basics(spec: RunSpec) -> Iterator[PlannedResource]:
    section = spec.kubernetes
    if section.namespace is None:
        yield PlannedResource("namespace", "Namespace", "Pulumi", "the run's own; Pod Security restricted")
    yield PlannedResource("run", "ConfigMap", "Pulumi", "owner of all others: they go with it")
    yield PlannedResource("code", "ConfigMap", "Pulumi", "dhctl's modules for the head")
    yield PlannedResource("token", "Secret", "Pulumi", "Ray's token, 256 bits; keys of the object store")
    if section.data_volume is not None:
        kind = section.storage_class or "the default class"
        size = format_size(section.data_volume)
        yield PlannedResource("data", "PersistentVolumeClaim", "Pulumi", f"{size} of {kind}, at /data in all pods")


def _access(spec: RunSpec) -> Iterator[PlannedResource]:
    if spec.kubernetes.service_account is None:
        head = () if spec.kubernetes.by_kuberay else (("head", "makes and ends pods"),)
        for part, does in (*head, ("lease", "deletes the run object, nothing else")):
            yield PlannedResource(f"{part}-account", "ServiceAccount", "Pulumi", does)
            yield PlannedResource(f"{part}-role", "Role", "Pulumi", "")
            yield PlannedResource(f"{part}-binding", "RoleBinding", "Pulumi", "")
    yield PlannedResource("network-policy", "NetworkPolicy", "Pulumi", "into the run's pods only from the run's pods")
    if not spec.kubernetes.by_kuberay:
        yield PlannedResource("service", "Service", "Pulumi", "headless; the head's name in the namespace")
    ends = f"ends the run after {format_duration(spec.lease)}, whoever is dead by then"
    yield PlannedResource("lease", "CronJob", "Pulumi", ends)


def _head(spec: RunSpec) -> Iterator[PlannedResource]:
    section = spec.kubernetes
    size = f"{section.head_cpus} CPU, {format_size(section.head_memory)}"
    if spec.kubernetes.by_kuberay:
        yield PlannedResource("ray-cluster", "RayCluster", "Pulumi", "from which KubeRay makes Ray's pods")
    maker = KUBERAY if spec.kubernetes.by_kuberay else "Pulumi"
    yield PlannedResource("head", "Pod", maker, f"{section.image}, {size}; Ray head, takes no tasks")


def _workers(spec: RunSpec) -> Iterator[PlannedResource]:
    size = spec.workers
    maker, beside = (KUBERAY, "beside") if spec.kubernetes.by_kuberay else ("dhctl", "on")
    yield PlannedResource("autoscaler", "process", maker, f"Ray's autoscaler v2, {beside} the head")
    worker = f"{size.cpus} CPU, {size.gpus} GPU, {format_size(size.memory)}"
    idle = f"leaves after {format_duration(size.idle_timeout)} idle"
    yield PlannedResource(f"{size.min} to {size.max} workers", "Pod", "autoscaler", f"{worker}; {idle}")
