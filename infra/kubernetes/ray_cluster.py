"""The RayCluster of a run, from which KubeRay's operator makes head and workers (ray.io/v1, KubeRay 1.5.1 or newer).

The operator writes each container's command, runs `ray` with bash out of the image's PATH, and puts Ray's autoscaler v2
beside the head. It copies no labels of the RayCluster to its pods: the mark stands in both templates.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

from dhctl.infra.kubernetes.discovery import RAY_CLUSTERS
from dhctl.infra.kubernetes.mark import HEAD, WORKER, Mark
from dhctl.infra.kubernetes.pod_objects import (
    CONTAINER_SECURITY,
    HEAD_SHM_PART,
    PREFIX,
    TOKEN,
    WITHOUT_GPUS,
    WORKER_SHM_PART,
    Manifest,
    PodObjects,
    named_env,
)
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.node.layout import AGENT_PORTS, CLIENT_PORT, DASHBOARD_PORT, GCS_PORT, HOME, WORKER_PORTS
from dhctl.infra.node.ray_head import LEAST_STORE_BYTES, MOST_STORE_BYTES
from dhctl.infra.spec import Workers

GROUP = "worker"
RAY_TEMP = "/tmp/ray"
"""Ray's folder in KubeRay's pods."""

USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AUTOSCALER_CPUS, AUTOSCALER_MEMORY_BYTES = "200m", 512 * 2**20
"""What the container beside the head asks for."""

GRACE_S = 5
"""Bash as the first process hears no SIGTERM: each second of grace is one of waiting."""

OWN_PORTS = {"--dashboard-agent-listen-port", "--metrics-export-port"}
"""Ports that the operator gives, and probes."""


def ray_cluster(
    metadata: Manifest, mark: Mark, pods: PodObjects, section: KubernetesSection, workers: Workers
) -> Manifest:
    """The object. It leaves `replicas` to the autoscaler, whose field that is: workers.min is a bound of it."""
    made = _Templates(mark, pods, section, workers)
    mounts = [*section.volume_mounts, {"name": f"{PREFIX}tmp", "mountPath": "/tmp"}]
    return {
        "apiVersion": RAY_CLUSTERS.api_version,
        "kind": RAY_CLUSTERS.kind,
        "metadata": metadata,
        "spec": {
            "rayVersion": version("ray"),
            "enableInTreeAutoscaling": True,
            "authOptions": {"mode": "token", "secretName": mark.name(TOKEN)},
            "autoscalerOptions": {
                "version": "v2",
                "idleTimeoutSeconds": int(workers.idle_timeout.total_seconds()),
                "imagePullPolicy": "IfNotPresent",
                "env": named_env({**made.env, "AUTOSCALER_UPDATE_INTERVAL_S": "1"}),
                "volumeMounts": [dict(mount) for mount in mounts],
                "securityContext": CONTAINER_SECURITY,
                "resources": _same({"cpu": AUTOSCALER_CPUS, "memory": str(AUTOSCALER_MEMORY_BYTES)}),
            },
            "headGroupSpec": {"rayStartParams": _head_params(section), "template": made.head()},
            "workerGroupSpecs": [
                {
                    "groupName": GROUP,
                    "minReplicas": workers.min,
                    "maxReplicas": workers.max,
                    "rayStartParams": _params() | {"num-cpus": str(workers.cpus), "num-gpus": str(workers.gpus)},
                    "template": made.worker(),
                }
            ],
        },
    }


class _Templates:
    """Templates of both kinds of pods."""

    def __init__(self, mark: Mark, pods: PodObjects, section: KubernetesSection, workers: Workers) -> None:
        self._mark, self._pods, self._section, self._workers = mark, pods, section, workers

    @property
    def env(self) -> dict[str, str]:
        """Of all containers: `ray` lies beside the interpreter that the spec names."""
        folder = str(PurePosixPath(self._section.python).parent)
        path = {} if folder == "." else {"PATH": f"{folder}:{USUAL_PATH}"}
        return {**path, **self._section.env, "HOME": HOME, RUN_ENV: self._mark.run_id}

    def head(self) -> Manifest:
        """The head's; the operator adds the autoscaler, whose service account it makes where none is named."""
        section = self._section
        container = self._container(self._pods.container(section.head_cpus, section.head_memory), gpus=0)
        account = {"serviceAccountName": section.service_account} if section.service_account else {}
        shm_bytes = section.head_memory // HEAD_SHM_PART
        return self._template(HEAD, {**self._base(shm_bytes), **account, "containers": [container]})

    def worker(self) -> Manifest:
        """A worker's."""
        size = self._workers
        container = self._container(self._pods.container(str(size.cpus), size.memory, size.gpus), size.gpus)
        spec = {
            **self._base(size.memory // WORKER_SHM_PART),
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        return self._template(WORKER, spec)

    def _base(self, shm_bytes: int) -> Manifest:
        return {**self._pods.base(self._pods.volumes(shm_bytes)), "terminationGracePeriodSeconds": GRACE_S}

    def _container(self, container: Manifest, gpus: int) -> Manifest:
        """Keys of the object store come by reference: in the RayCluster everybody could read them."""
        env = {**self.env, **({} if gpus else WITHOUT_GPUS)}
        secret = {"secretRef": {"name": self._mark.name(TOKEN)}}
        return {**container, "imagePullPolicy": "IfNotPresent", "env": named_env(env), "envFrom": [secret]}

    def _template(self, role: str, spec: Manifest) -> Manifest:
        return {"metadata": {"labels": self._mark.pod_labels(role)}, "spec": spec}


def _params() -> dict[str, str]:
    """Options of `ray start`, without their dashes; ports are fixed as on all targets, but for the operator's own."""
    ports = {option.removeprefix("--"): str(port) for option, port in AGENT_PORTS.items() if option not in OWN_PORTS}
    lowest, highest = WORKER_PORTS
    return {**ports, "min-worker-port": str(lowest), "max-worker-port": str(highest), "disable-usage-stats": "true"}


def _head_params(section: KubernetesSection) -> dict[str, str]:
    """No task runs on the head."""
    store_bytes = max(LEAST_STORE_BYTES, min(section.head_memory // 10, MOST_STORE_BYTES))
    own = {"num-cpus": 0, "num-gpus": 0, "object-store-memory": store_bytes, "dashboard-host": "127.0.0.1"}
    doors = {"port": GCS_PORT, "dashboard-port": DASHBOARD_PORT, "ray-client-server-port": CLIENT_PORT}
    return {**_params(), **{option: str(value) for option, value in (own | doors).items()}}


def _same(amounts: dict[str, Any]) -> Manifest:
    return {"requests": amounts, "limits": amounts}
