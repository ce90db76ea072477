"""The manifests of a run's objects. Pure: nothing here asks the API.

namespace           only where the spec names none            network policy   Ray is open to the run's pods alone
run                 owner of all others, and the settings     service          the head's name
code                dhctl's modules, and lease.py             data             the claim, where one is wanted
token               secret, filled when it is made            lease            a cron job that ends the run in time
accounts, roles, bindings of head and lease                   head             the pod; workers are its autoscaler's

With KubeRay a RayCluster takes the place of the head's pod, account and service: all of Ray's pods are the operator's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Self

from dhctl.infra.kubernetes import rights
from dhctl.infra.kubernetes.mark import CLUSTER_LABEL, HEAD, LEASE, RAY_CLUSTER, ROLE_LABEL, Mark
from dhctl.infra.kubernetes.node import lease
from dhctl.infra.kubernetes.node.settings import PodSettings
from dhctl.infra.kubernetes.pod_objects import (
    AUTH_TOKEN_KEY,
    CODE,
    CODE_KEY,
    DATA,
    ENV_KEY,
    LEASE_KEY,
    SETTINGS_KEY,
    TOKEN,
    TOKEN_KEY,
    Manifest,
    PodObjects,
)
from dhctl.infra.kubernetes.ray_cluster import ray_cluster
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.node.layout import GCS_PORT
from dhctl.infra.openstack.userdata import code_tar
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import Workers

ENFORCE, RESTRICTED = "pod-security.kubernetes.io/enforce", "restricted"
RUN, ACCESS, NETWORK, NAMESPACE = "run", "access", "network", "namespace"
"""Roles in the label, beside those of pods and of what pods mount."""

BINDING = "-binding"
"""Ends the names of those parts that are bindings of roles."""

CODE_LIMIT_BYTES = 700_000
"""A configmap holds 1 MiB, in base64 form."""


def schedule(expires_at: int, now: float) -> str:
    """When the lease's cron job runs: in the first whole minute after the end, and in one that is still to come.

    A time that is past when the job is made would come again in a year only.
    """
    end, soonest = datetime.fromtimestamp(expires_at, UTC), datetime.fromtimestamp(now, UTC) + timedelta(minutes=1)
    at = max(end, soonest) + timedelta(minutes=1)
    return f"{at.minute} {at.hour} {at.day} {at.month} *"


@dataclass(frozen=True)
class RunObjects:
    """What the manifests of one run are made from. Each method that takes `owner` wants the run object's uid."""

    mark: Mark
    name: str
    """The run's name in the spec."""
    section: KubernetesSection
    workers: Workers
    cpu_limits: bool = False
    """Whether pods state a limit of CPU too: where a quota of the namespace wants one. It slows Ray's start."""
    code: bytes = field(default=b"", repr=False)
    """dhctl.infra as a compressed tar file."""

    @classmethod
    def of(cls, record: RunRecord, *, cpu_limits: bool = False) -> Self:
        """A run's."""
        spec, mark = record.spec, Mark(record.run_id, int(record.expires_at.timestamp()))
        return cls(mark, spec.name, spec.kubernetes, spec.workers, cpu_limits, code_tar())

    @property
    def namespace(self) -> str:
        """Where the objects lie."""
        return self.section.namespace or self.mark.run_id

    @property
    def own_namespace(self) -> bool:
        """Whether the namespace is made, and goes, with the run."""
        return self.section.namespace is None

    @property
    def head_account(self) -> str:
        """The head's service account."""
        return self.section.service_account or self.mark.name(HEAD)

    @property
    def lease_account(self) -> str:
        """The lease's service account; a given one serves both."""
        return self.section.service_account or self.mark.name(LEASE)

    @property
    def head_name(self) -> str:
        """Name of the head's pod, and of its service."""
        return self.mark.name(HEAD)

    @cached_property
    def pods(self) -> PodObjects:
        """Specs of the pods."""
        return PodObjects(self.mark, self.section, self.workers, cpu_limits=self.cpu_limits)

    def namespace_object(self) -> Manifest:
        """The run's own namespace, in which only pods run that satisfy Pod Security's level restricted."""
        labels = {**self.mark.labels(NAMESPACE), ENFORCE: RESTRICTED}
        return {**_v1("Namespace"), "metadata": {"name": self.namespace, "labels": labels}}

    def run_object(self) -> Manifest:
        """Owner of all others; what a head of dhctl's own needs to know."""
        data = {} if self.section.by_kuberay else {SETTINGS_KEY: json.dumps(self.settings().to_dict(), sort_keys=True)}
        return {**_v1("ConfigMap"), "metadata": self._metadata(self.mark.run_id, RUN), "data": data}

    def settings(self) -> PodSettings:
        """The head's settings; no secret."""
        size = self.workers
        return PodSettings(
            run_id=self.mark.run_id,
            name=self.name,
            namespace=self.namespace,
            node_id=self.head_name,
            expires_at=self.mark.expires_at,
            worker_pod={**_v1("Pod"), "spec": self.pods.worker()},
            min_workers=size.min,
            max_workers=size.max,
            worker_cpus=size.cpus,
            worker_gpus=size.gpus,
            worker_memory_bytes=size.memory,
            idle_timeout_s=size.idle_timeout.total_seconds(),
            head_memory_bytes=self.section.head_memory,
            python=self.section.python,
        )

    def owned(self, owner: str, now: float) -> dict[str, Manifest]:
        """By short names, all that the run object owns but token and Ray itself. `now` in epoch seconds."""
        return {
            "lease": self.lease_job(owner, now),
            "code": self.code_object(owner),
            "network-policy": self.network_policy(owner),
            **({} if self.section.by_kuberay else {"service": self.service(owner)}),
            **self.access(owner),
            **({} if self.section.data_volume is None else {"data": self.claim(owner)}),
        }

    def code_object(self, owner: str) -> Manifest:
        """What pods run. Raises ValueError when it is too much for one object."""
        if len(self.code) > CODE_LIMIT_BYTES:
            raise ValueError(f"dhctl's code has {len(self.code)} bytes, and a configmap takes {CODE_LIMIT_BYTES}")
        return {
            **_v1("ConfigMap"),
            "metadata": self._metadata(self.mark.name(CODE), CODE, owner),
            "binaryData": {} if self.section.by_kuberay else {CODE_KEY: base64.b64encode(self.code).decode()},
            "data": {LEASE_KEY: Path(lease.__file__).read_text()},
        }

    def token_object(self, owner: str) -> Manifest:
        """The secret without its content: see `with_content`."""
        return {**_v1("Secret"), "metadata": self._metadata(self.mark.name(TOKEN), TOKEN, owner), "type": "Opaque"}

    def access(self, owner: str) -> dict[str, Manifest]:
        """Service accounts of head and lease with their rights; none where the spec names an account."""
        if self.section.service_account:
            return {}
        wanted = {HEAD: rights.head_rules(self.mark.run_id), LEASE: rights.lease_rules(self.mark.run_id)}
        if self.section.by_kuberay:
            del wanted[HEAD]
        found = {}
        for part, rules in wanted.items():
            name = self.mark.name(part)
            metadata = self._metadata(name, ACCESS, owner)
            found[f"{part}-account"] = {**_v1("ServiceAccount"), "metadata": metadata}
            found[f"{part}-role"] = {**_rbac("Role"), "metadata": metadata, "rules": [dict(rule) for rule in rules]}
            found[f"{part}{BINDING}"] = {
                **_rbac("RoleBinding"),
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
            }
        return found

    def network_policy(self, owner: str) -> Manifest:
        """Into pods of the cluster only pods of the cluster; what they reach themselves is untouched."""
        ours = {"podSelector": {"matchLabels": {CLUSTER_LABEL: self.mark.run_id}}}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self._metadata(self.mark.run_id, NETWORK, owner),
            "spec": {**ours, "policyTypes": ["Ingress"], "ingress": [{"from": [ours]}]},
        }

    def service(self, owner: str) -> Manifest:
        """The head's name in the namespace."""
        return {
            **_v1("Service"),
            "metadata": self._metadata(self.head_name, NETWORK, owner),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {CLUSTER_LABEL: self.mark.run_id, ROLE_LABEL: HEAD},
                "ports": [{"name": "gcs", "port": GCS_PORT, "protocol": "TCP"}],
            },
        }

    def claim(self, owner: str) -> Manifest:
        """The data volume, which all pods of the run write to."""
        storage_class = self.section.storage_class
        return {
            **_v1("PersistentVolumeClaim"),
            "metadata": self._metadata(self.mark.name(DATA), DATA, owner),
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": str(self.section.data_volume)}},
                **({} if storage_class is None else {"storageClassName": storage_class}),
            },
        }

    def lease_job(self, owner: str, now: float) -> Manifest:
        """Deletes the run object when the lease has ended, whoever is dead by then."""
        marked = {"labels": self.mark.labels(LEASE)}
        pod = {"metadata": marked, "spec": self.pods.lease(self.lease_account)}
        return {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": self._metadata(self.mark.name(LEASE), LEASE, owner),
            "spec": {
                "schedule": schedule(self.mark.expires_at, now),
                "timeZone": "Etc/UTC",
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"metadata": marked, "spec": {"backoffLimit": 10, "template": pod}},
            },
        }

    def ray(self, owner: str) -> Manifest:
        """What Ray starts from: the RayCluster, or the head's pod."""
        if not self.section.by_kuberay:
            return self.head_pod(owner)
        metadata = self._metadata(self.mark.run_id, RAY_CLUSTER, owner)
        return ray_cluster(metadata, self.mark, self.pods, self.section, self.workers)

    def head_pod(self, owner: str) -> Manifest:
        """Ray's head and its autoscaler."""
        metadata = self._metadata(self.head_name, HEAD, owner)
        metadata["labels"] = self.mark.pod_labels(HEAD)
        return {**_v1("Pod"), "metadata": metadata, "spec": self.pods.head(self.head_account)}

    def _metadata(self, name: str, role: str, owner: str = "") -> Manifest:
        metadata: Manifest = {"name": name, "namespace": self.namespace, "labels": self.mark.labels(role)}
        if owner:
            owned = {"apiVersion": "v1", "kind": "ConfigMap", "name": self.mark.run_id, "uid": owner}
            metadata["ownerReferences"] = [{**owned, "blockOwnerDeletion": True}]
        return metadata


def with_content(token_object: Manifest, token: str, env: Mapping[str, str], *, by_kuberay: bool = False) -> Manifest:
    """The secret as it is sent: Ray's token, and what jobs find in their environment; with KubeRay a key a variable."""
    content = {TOKEN_KEY: token, ENV_KEY: json.dumps(dict(env), sort_keys=True)}
    if by_kuberay:
        content = {**env, AUTH_TOKEN_KEY: token}
    # not stringData: of that server-side apply keeps no account
    return {**token_object, "data": {key: base64.b64encode(text.encode()).decode() for key, text in content.items()}}


def _v1(kind: str) -> Manifest:
    return {"apiVersion": "v1", "kind": kind}


def _rbac(kind: str) -> Manifest:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind}
