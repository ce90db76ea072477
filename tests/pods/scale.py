"""Many workers on simulated nodes: head, autoscaler and provider are real, and no process belongs to a worker."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes import client
from pods.runs import PodRuns

from dhctl.infra.node.autoscaler import PAUSE_S
from testbeds.errors import TestbedError
from testbeds.kubernetes.calls import counted_calls
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.pods import execute
from testbeds.kubernetes.project import PYTHON
from testbeds.kubernetes.simulator import TOLERATION, simulated_nodes
from testbeds.sharing import run_verb

WORKER_CPUS = 16
"""More than a real node has: no worker gets there."""
ON_EACH = 20
ROOM = {"cpu": str(WORKER_CPUS * ON_EACH), "memory": "64Gi"}
WATCHED_S = 8.0
"""The autoscaler's rounds after the last worker: one too many would come within that time."""
ROUNDS_LIMIT_S = 240.0
"""For the ends of two rounds."""
DEMAND = "demand at "
JOB = f"""import sys, time, ray
from ray.autoscaler.sdk import request_resources
ray.init(log_to_driver=False)
print("{DEMAND}", time.time(), flush=True)
request_resources(bundles=[{{"CPU": {WORKER_CPUS}}}] * int(sys.argv[1]))
"""
ROUNDS = """import os, sys, time
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/etc/dhctl/secret/token"}
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
gcs, began, ends = GcsClient(sys.argv[1] + ":6379"), time.monotonic(), []
def seen():
    reply = GetClusterStatusReply.FromString(gcs.get_cluster_status(timeout_s=30))
    return reply.autoscaling_state.last_seen_cluster_resource_state_version
last = seen()
while (lasted := time.monotonic() - began) < float(sys.argv[3]):
    if len(ends) > 1 and lasted > float(sys.argv[2]):
        break
    time.sleep(0.1)
    if (now := seen()) != last:
        last = now
        ends.append(time.monotonic())
print("round ends:", *ends)
"""
"""At the end of each round Ray's autoscaler reports which state of the cluster it has seen: a new one each time."""


@dataclass(frozen=True)
class Scaled:
    """What came of a demand. Seconds are since the demand, by this machine's clock."""

    wanted: int
    """Workers that were to come."""
    workers: int
    """Pods of workers at the end, those that end included: the cluster may have evicted some, which were replaced."""
    created_s: float
    """Until the last of the wanted ones was made."""
    running_s: float
    """Until all of them run, as far as simulated ones do."""
    calls: Counter[str]
    """Of the run's pods, from the demand until all run (testbeds.kubernetes.calls.KINDS)."""
    loop_s: float
    """The autoscaler's round with all workers there, without its pause, as a mean."""

    @property
    def calls_each(self) -> float:
        """Calls per worker that was wanted."""
        return self.calls.total() / self.wanted


def scale(dhctl: PodRuns, cluster: KubernetesCluster, most: int, wanted: int, limit_s: float) -> Scaled:
    """Brings a run up, asks for `wanted` workers of which `most` may be, and takes it down. Raises TestbedError."""
    run_verb("kubernetes", cluster.layout.env, "simulate")
    (dhctl.folder / "scale").mkdir()
    (dhctl.folder / "scale" / "main.py").write_text(JOB)
    spec = dhctl.spec(
        "scale",
        workers={"max": most, "cpus": WORKER_CPUS, "memory": "512MiB", "idle_timeout": "15m"},
        job={"folder": "scale", "entrypoint": f"python main.py {wanted}"},
        kubernetes={"ray": "pods", "tolerations": [TOLERATION]},
    )
    with cluster.admin() as admin:
        core, prefix = client.CoreV1Api(admin), f"simulated-{secrets.token_hex(3)}"
        with (
            simulated_nodes(core, prefix, -(-most // ON_EACH), ROOM) as nodes,
            counted_calls(admin, dhctl.namespace) as calls,
        ):
            up = dhctl("up", spec)
            assert up.returncode == 0, up.stdout + up.stderr
            nodes.open(2 * ON_EACH)
            scaled = _demand(dhctl, admin, calls, most, limit_s)
            down = dhctl("down", "scale")
            assert down.returncode == 0, down.stdout + down.stderr
            return scaled


def _demand(
    dhctl: PodRuns, admin: client.ApiClient, calls: Callable[[], Counter[str]], most: int, limit_s: float
) -> Scaled:
    record, core = dhctl.record(), client.CoreV1Api(admin)
    selector = f"dhctl/run={record.run_id},dhctl/role=worker"
    called = calls()
    train = dhctl.start("train", record.run_id, "--json")
    created, running = _follow(core, dhctl.namespace, selector, most, limit_s)
    called = calls() - called
    told, _ = train.communicate(timeout=120)
    lines = [event["line"] for event in map(json.loads, told.splitlines()) if event.get("event") == "JobLogged"]
    [demanded] = [float(line.removeprefix(DEMAND)) for line in lines if line.startswith(DEMAND)]
    loop_s = _round_s(admin, dhctl.namespace, f"{record.run_id}-head") - PAUSE_S
    pods = core.list_namespaced_pod(dhctl.namespace, label_selector=selector).items
    return Scaled(most, len(pods), created - demanded, running - demanded, called, loop_s)


def _follow(core: client.CoreV1Api, namespace: str, selector: str, most: int, limit_s: float) -> tuple[float, float]:
    """When so many workers were there, and when so many ran."""
    seen: set[str] = set()
    running: set[str] = set()
    created_at, end = 0.0, time.monotonic() + limit_s
    while (left_s := end - time.monotonic()) > 0:
        for pod in _changes(core, namespace, selector, left_s):
            seen.add(pod["metadata"]["name"])
            if pod["status"].get("phase") == "Running":
                running.add(pod["metadata"]["name"])
            if len(seen) >= most and not created_at:
                created_at = time.time()
            if len(running) >= most:
                return created_at, time.time()
    raise TestbedError(f"of {most} workers {len(seen)} were made and {len(running)} run after {limit_s:.0f} s")


def _changes(core: client.CoreV1Api, namespace: str, selector: str, limit_s: float) -> Iterator[dict[str, Any]]:
    """Pods, those that are there and then each that changes, until the API server ends the watch.

    As JSON: a thousand pods as the client's objects would take this machine's time.
    """
    answer = core.list_namespaced_pod(
        namespace,
        label_selector=selector,
        watch=True,
        timeout_seconds=max(1, int(limit_s)),
        _request_timeout=limit_s + 10,
        _preload_content=False,
    )
    rest = b""
    try:
        for part in answer.stream(1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            for event in map(json.loads, lines):
                if event["type"] == "ERROR":  # as when the server's cache is filled anew: look again
                    return
                yield event["object"]
    finally:
        answer.close()


def _round_s(admin: client.ApiClient, namespace: str, head: str) -> float:
    address = client.CoreV1Api(admin).read_namespaced_pod(head, namespace).status.pod_ip
    command = [PYTHON, "-c", ROUNDS, address, str(WATCHED_S), str(ROUNDS_LIMIT_S)]
    told = execute(admin, namespace, head, command, ROUNDS_LIMIT_S + 30)
    _, said, times = told.partition("round ends:")
    ends = [float(word) for word in times.split()]
    assert said, told
    assert len(ends) > 1, f"the autoscaler ended no two rounds within {ROUNDS_LIMIT_S} s: {told}"
    return (ends[-1] - ends[0]) / (len(ends) - 1)
