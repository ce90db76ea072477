"""Logs out of a run's pods, through the API server."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.errors import ClusterError
from dhctl.infra.home import storage_errors
from dhctl.infra.kubernetes.client import NO_SERVER, Cluster, api_errors
from dhctl.infra.kubernetes.discovery import PODS
from dhctl.infra.kubernetes.inventory import items_of
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.pod_exec import PodEndpoint, require, run_in_pod
from dhctl.infra.kubernetes.raw import read
from dhctl.infra.untrusted_tar import extract

LIMIT_BYTES = 2**30
"""What is copied at most; small files go first."""

POD_LOG_BYTES, POD_LOG_LINES = 16 * 2**20, 100_000
LOGS_AT_ONCE = 8
ANSWER_S, LATE_S = 60.0, 10.0
"""How long a log may take; and that of a pod that is being deleted, whose node may be dead."""

SEND = """
import os, sys, tarfile
class Counted:
    sent = 0
    def write(self, data):
        self.sent += len(data)
        return sys.stdout.buffer.write(data)
class Whole:
    # a file that is cut while it is read keeps the size that was told
    def __init__(self, file):
        self.file = file
    def read(self, size):
        data = self.file.read(size)
        return data + bytes(size - len(data))
limit, found = int(sys.argv[1]), []
for folder in sys.argv[2:]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found.append((os.path.getsize(path), os.path.relpath(path, folder), path))
if not any(map(os.path.isdir, sys.argv[2:])):
    sys.exit('there is no such folder')
counted = Counted()
with tarfile.open(fileobj=counted, mode='w|') as packed:
    for size, name, path in sorted(found):
        try:
            with open(path, 'rb') as file:
                member = packed.gettarinfo(arcname=name, fileobj=file)
                if counted.sent + member.size + 20480 > limit:
                    print('too large:', name, file=sys.stderr)
                    continue
                packed.addfile(member, Whole(file))
        except FileNotFoundError:
            continue
sys.stdout.buffer.flush()
print('sent', counted.sent, file=sys.stderr)
"""
"""What runs in the pod, whose image need not have tar. A connection that breaks between two files looks like the end
of the file: hence the count of bytes.
"""


def fetch(
    pod: PodEndpoint, folders: Sequence[str], into: Path, timeout_s: float = 300.0, limit_bytes: int = LIMIT_BYTES
) -> tuple[str, ...]:
    """Copies the files of those of the pod's folders that are there into one of this machine; can be repeated.

    The pod is not trusted: what leads out of a folder, and what is no file, is left out. The names of these are
    returned, and of files too large. Raises what `run_in_pod` raises, ClusterError when there is none of the folders,
    or only a part arrived, StateFolderError when this machine cannot store it.
    """
    told = ", ".join(folders)
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    with storage_errors(into), tempfile.TemporaryFile(dir=into) as tar:
        command = [pod.python, "-c", SEND, str(limit_bytes), *folders]
        done = run_in_pod(pod, command, tar, timeout_s, limit_bytes + 2**20)
        require(pod, done, f"reading {told}")
        *words, end = done.words.splitlines() or [""]
        if end != f"sent {done.size_bytes}":
            raise ClusterError(f"only a part of {told} came from pod {pod.name}", "try again")
        tar.seek(0)
        try:
            left_out = extract(tar, into)
        except tarfile.TarError as error:
            raise ClusterError(f"only a part of {told} came from pod {pod.name} ({error})") from error
    large = (word.removeprefix("too large: ") for word in words if word.startswith("too large: "))
    return (*left_out, *large)


def pods_of(cluster: Cluster, namespace: str, run_id: str) -> list[dict[str, Any]]:
    """The run's pods as the API tells them. Raises ClusterApiError."""
    with api_errors("list pods"):
        return items_of(cluster, PODS.path(namespace), [("labelSelector", Mark(run_id).selector)])


def log_of(cluster: Cluster, pod: dict[str, Any], container: str, lines: int, *, previous: bool = False) -> bytes:
    """The newest lines of a container's log; of the one before it was started again with `previous`.

    Raises ApiException, and what `client.NO_SERVER` lists.
    """
    query = [("container", container), ("tailLines", str(lines)), ("limitBytes", str(POD_LOG_BYTES))]
    if previous:
        query.append(("previous", "true"))
    path = f"{PODS.path(pod['metadata']['namespace'], pod['metadata']['name'])}/log"
    return read(cluster, path, query, timeout_s=LATE_S if pod["metadata"].get("deletionTimestamp") else ANSWER_S)


def save_logs(cluster: Cluster, namespace: str, run_id: str, into: Path) -> int:
    """Writes what the containers of the run's pods printed into files, one a container; how many there are.

    A container that has no log, or whose node does not answer, has no file. Raises ClusterApiError when pods cannot be
    listed, StateFolderError when this machine cannot store it.
    """
    wanted = [log for pod in pods_of(cluster, namespace, run_id) for log in _logs(pod)]
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)

        def save(log: tuple[dict[str, Any], str, bool]) -> int:
            pod, container, previous = log
            try:
                text = log_of(cluster, pod, container, POD_LOG_LINES, previous=previous)
            except (ApiException, *NO_SERVER):
                return 0
            name = f"{pod['metadata']['name']}.{container}{'.previous' if previous else ''}.log"
            (into / name).write_bytes(text)
            return 1

        with ThreadPoolExecutor(LOGS_AT_ONCE) as logs:
            return sum(logs.map(save, wanted))


def _logs(pod: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if "waiting" not in (status.get("state") or {}):
            yield pod, status["name"], False
        if status.get("restartCount") or (status.get("lastState") or {}).get("terminated"):
            yield pod, status["name"], True
