"""Pods of a run as manifests: head, template of the workers, lease. All satisfy Pod Security's level restricted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dhctl.infra.kubernetes.mark import LEASE, Mark
from dhctl.infra.kubernetes.node.settings import SECRET, SETTINGS
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.node.layout import CODE_FOLDER, HOME, HOME_ENV, NodeFolder
from dhctl.infra.spec import Workers

Manifest = dict[str, Any]

CONTAINER = "ray"
"""Name of the one container of head and workers."""

CODE, TOKEN, DATA = "code", "token", "data"
"""Parts of the run that pods mount."""

CODE_KEY, LEASE_KEY, SETTINGS_KEY = "code.tar.gz", "lease.py", "settings.json"
TOKEN_KEY, ENV_KEY = "token", "env.json"
AUTH_TOKEN_KEY = "auth_token"
"""Key of Ray's token as KubeRay's operator wants it."""

ETC, DATA_FOLDER = "/etc/dhctl", "/data"
CODE_FILE, LEASE_FILE = f"{ETC}/code/{CODE_KEY}", f"{ETC}/lease/{LEASE_KEY}"
HEAD_MODULE = "dhctl.infra.kubernetes.node.head"

PREFIX = "dhctl-"
"""Names of volumes that are dhctl's begin so."""

SECRET_MODE, OPEN_MODE = 0o440, 0o444
GRACE_S = 10
"""What is left to Ray's processes to end: they take 5 s at most."""

HEAD_SHM_PART, WORKER_SHM_PART = 4, 2
"""Which part of the memory /dev/shm may take. Workers: Ray's object store is a quarter, data loaders share more."""

LEASE_CPUS, LEASE_MEMORY_BYTES = "50m", 128 * 2**20

IS_READY = "import json,sys;sys.exit(json.load(open(sys.argv[1]))['state']!='ready')"
"""`python -c`: whether the head's own process says that Ray answers with the token; the dashboard is on loopback."""

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
WITHOUT_GPUS = {"NVIDIA_VISIBLE_DEVICES": "void"}
"""Else images that say `all` see every GPU of a node whose default runtime is NVIDIA's, asked for or not."""


class PodObjects:
    """The parts of `Pod` objects that follow from the spec. `cpu_limits`: see `objects.RunObjects`."""

    def __init__(self, mark: Mark, section: KubernetesSection, workers: Workers, *, cpu_limits: bool = False) -> None:
        self._mark, self._section, self._workers, self._cpu_limits = mark, section, workers, cpu_limits

    def head(self, account: str) -> Manifest:
        """`spec` of Ray's head and its autoscaler. Started again in place when it ends."""
        section, python = self._section, shlex.quote(self._section.python)
        start = (
            f"{python} -m tarfile -e {CODE_FILE} {CODE_FOLDER}"
            f" && PYTHONPATH={CODE_FOLDER}${{PYTHONPATH:+:$PYTHONPATH}} exec {python} -u -m {HEAD_MODULE}"
        )
        identity = {name: _field(path) for name, path in _IDENTITY.items()}
        own = {RUN_ENV: self._mark.run_id, HOME_ENV: HOME, "HOME": HOME, **WITHOUT_GPUS}
        container = {
            **self.container(section.head_cpus, section.head_memory),
            "command": ["sh", "-c", start],
            "env": named_env({**section.env, **identity, **own}),
            "readinessProbe": {
                "exec": {"command": [section.python, "-IS", "-c", IS_READY, str(NodeFolder(Path(HOME)).agent)]},
                "periodSeconds": 2,
                "timeoutSeconds": 5,
            },
        }
        container["volumeMounts"] += [_MOUNTED_ETC, {"name": f"{PREFIX}code", "mountPath": CODE_FOLDER}]
        code = {"key": CODE_KEY, "path": f"code/{CODE_KEY}", "mode": OPEN_MODE}
        settings = {"key": SETTINGS_KEY, "path": SETTINGS.removeprefix(f"{ETC}/"), "mode": OPEN_MODE}
        etc = self._etc(
            {"configMap": {"name": self._mark.name(CODE), "items": [code]}},
            {"configMap": {"name": self._mark.run_id, "items": [settings]}},
        )
        return {
            **self.base([etc, _empty("code"), *self.volumes(section.head_memory // HEAD_SHM_PART)]),
            "serviceAccountName": account,
            "automountServiceAccountToken": True,
            "restartPolicy": "Always",
            "containers": [container],
        }

    def worker(self) -> Manifest:
        """`spec` of each worker but for its command and Ray's part of its environment: node/worker_pod.py adds them."""
        size = self._workers
        container = self.container(str(size.cpus), size.memory, size.gpus)
        container["volumeMounts"].append(_MOUNTED_ETC)
        container["env"] = named_env({**self._section.env, "HOME": HOME, **({} if size.gpus else WITHOUT_GPUS)})
        return {
            **self.base([self._etc(), *self.volumes(size.memory // WORKER_SHM_PART)]),
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "containers": [container],
        }

    def lease(self, account: str) -> Manifest:
        """`spec` of what deletes the run object. It needs nothing but Python, and of the spec's volumes, which may be
        of one node, none but where the interpreter lies in one.
        """
        section = self._section
        mounted = any(section.python.startswith(f"{mount.get('mountPath')}/") for mount in section.volume_mounts)
        mounts, volumes = (section.volume_mounts, section.volumes) if mounted else ((), ())
        code = {"name": self._mark.name(CODE), "items": [{"key": LEASE_KEY, "path": LEASE_KEY}]}
        container = {
            "name": LEASE,
            "image": section.image,
            "command": [section.python, "-u", LEASE_FILE, self._mark.run_id],
            "resources": self._resources(LEASE_CPUS, LEASE_MEMORY_BYTES),
            "securityContext": CONTAINER_SECURITY,
            "volumeMounts": [{"name": f"{PREFIX}lease", "mountPath": f"{ETC}/lease", "readOnly": True}, *mounts],
        }
        return {
            **self.base([{"name": f"{PREFIX}lease", "configMap": code}, *map(self._given, volumes)]),
            "serviceAccountName": account,
            "automountServiceAccountToken": True,
            "restartPolicy": "OnFailure",
            "containers": [container],
        }

    def container(self, cpus: str, memory_bytes: int, gpus: int = 0) -> Manifest:
        """What head and workers have in common, whoever makes them."""
        folders = {f"{PREFIX}home": HOME, f"{PREFIX}tmp": "/tmp", f"{PREFIX}shm": "/dev/shm"}
        if self._section.data_volume is not None:
            folders[f"{PREFIX}data"] = DATA_FOLDER
        mounts = [{"name": name, "mountPath": path} for name, path in folders.items()]
        return {
            "name": CONTAINER,
            "image": self._section.image,
            "resources": self._resources(cpus, memory_bytes, gpus),
            "securityContext": CONTAINER_SECURITY,
            "volumeMounts": [*mounts, *(dict(mount) for mount in self._section.volume_mounts)],
        }

    def _resources(self, cpus: str, memory_bytes: int, gpus: int = 0) -> Manifest:
        same: Manifest = {"memory": str(memory_bytes)}
        if gpus:
            same[self._section.gpu_resource] = str(gpus)
        limits = {**same, "cpu": cpus} if self._cpu_limits else same
        return {"requests": {**same, "cpu": cpus}, "limits": limits}

    def base(self, volumes: list[Manifest]) -> Manifest:
        """What all pods have in common: place, user, image's secrets."""
        section = self._section
        user = {"runAsNonRoot": True, "runAsUser": section.user_id, "fsGroup": section.user_id}
        given: Manifest = {
            "nodeSelector": dict(section.node_selector),
            "tolerations": [dict(toleration) for toleration in section.tolerations],
            "priorityClassName": section.priority_class,
            "runtimeClassName": section.runtime_class,
            "imagePullSecrets": [{"name": name} for name in section.image_pull_secrets],
        }
        return {
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_S,
            "volumes": volumes,
            **{key: value for key, value in given.items() if value},
        }

    def _etc(self, *sources: Manifest) -> Manifest:
        """The volume at /etc/dhctl: token and environment of jobs, and what else is given."""
        folder = SECRET.removeprefix(f"{ETC}/")
        items = [{"key": key, "path": f"{folder}/{key}", "mode": SECRET_MODE} for key in (TOKEN_KEY, ENV_KEY)]
        secret = {"secret": {"name": self._mark.name(TOKEN), "items": items}}
        return {"name": f"{PREFIX}etc", "projected": {"sources": [secret, *sources]}}

    def volumes(self, shm_bytes: int) -> list[Manifest]:
        """Those of head and workers: what may be written to, the claim, the spec's own."""
        shm = {"name": f"{PREFIX}shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(shm_bytes)}}
        claim = {"name": f"{PREFIX}data", "persistentVolumeClaim": {"claimName": self._mark.name(DATA)}}
        wanted = [claim] if self._section.data_volume is not None else []
        return [_empty("home"), _empty("tmp"), shm, *wanted, *map(self._given, self._section.volumes)]

    def _given(self, volume: Mapping[str, Any]) -> Manifest:
        """A volume of the spec. Claims that Kubernetes makes for it carry the run's mark too."""
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template is None:
            return dict(volume)
        metadata = template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), **self._mark.labels(DATA)}
        marked = {**template, "metadata": {**metadata, "labels": labels}}
        return {**volume, "ephemeral": {**volume["ephemeral"], "volumeClaimTemplate": marked}}


_MOUNTED_ETC = {"name": f"{PREFIX}etc", "mountPath": ETC, "readOnly": True}
_IDENTITY = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "NAMESPACE": "metadata.namespace"}


def _field(path: str) -> Manifest:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def named_env(env: Mapping[str, str | Manifest]) -> list[Manifest]:
    """Server-side apply refuses a name that comes twice: a mapping has none."""
    return [{"name": k, "value": v} if isinstance(v, str) else {"name": k, "valueFrom": v} for k, v in env.items()]


def _empty(name: str) -> Manifest:
    return {"name": f"{PREFIX}{name}", "emptyDir": {}}
