"""`make bench` on the Kubernetes testbed: dhctl beside kubectl with the same objects, alternating in one run; medians.

python tests/bench/on_kubernetes.py [--rounds N] [--write docs/benchmarks-kubernetes.md]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pods.fixtures import tenants_namespace
from pods.runs import section

from bench.clouds import EVERY_S, JOB, JOIN_LIMIT_S, Samples, join, page, running, timed
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import Home, default_root
from dhctl.infra.kubernetes import bring_up
from dhctl.infra.kubernetes.node.worker_pod import ray_words, worker_pod
from dhctl.infra.kubernetes.objects import RunObjects, with_content
from dhctl.infra.kubernetes.port_forward import open_forward
from dhctl.infra.ledger import last
from dhctl.infra.node.layout import HOME, NodeFolder
from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.ray_config import node_options
from dhctl.infra.record import open_record
from dhctl.infra.run_secrets import RunSecrets, store_environment
from dhctl.infra.spec_file import load_spec
from dhctl.stacks.kubernetes.target import cluster_of
from e2e.driver import Dhctl, clean_environment
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.layout import MACHINE_ADDRESS, Layout
from testbeds.kubernetes.programs import programs
from testbeds.kubernetes.testbed import Testbed
from testbeds.object_store import object_store

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    ("`dhctl plan`", "plan", "", 0.0),
    ("`up` to Ray answering in the head / kubectl", "up", "floor up", 1.2),
    ("the same, with the doors tried", "up, proven", "", 0.0),
    ("worker: from demand to alive in Ray / kubectl", "worker", "floor worker", 1.2),
    ("`down` with receipt / kubectl delete --wait", "down", "floor down", 1.3),
)
INTRO = """# Benchmarks on Kubernetes

Written by `make bench`: dhctl on the testbed (a real Kubernetes of two nodes on one machine) beside `kubectl` with the
very same objects, alternating in one run, medians; in brackets the least and the largest ratio of a round.

`up` and `down` are timed from the start of the process, kubectl's steps from that of its first one. A worker is timed
from the demand for it (here the first task's submission, there `kubectl apply`) until Ray lists it. `down` has copied
the logs and stopped the autoscaler before the pods go, so that they may go at once; kubectl's get the time that they
ask for, 10 s at most for the head and 2 s for a worker.
"""
NOT_MET = """
Goals that are not met: kubectl is told what is there and what to delete; dhctl asks the cluster first whether the run
fits, starts Pulumi, looks at all kinds of the namespace twice, and copies the logs before the pods go.
"""


class Floor:
    """One plain cluster: the objects of a run that dhctl would make, applied and deleted by kubectl."""

    def __init__(self, folder: Path, spec: Path) -> None:
        self._folder = folder
        self._record = open_record(Home(folder / "floor"), load_spec(spec), "0.0", {})
        self._objects = RunObjects.of(self._record)
        RunSecrets.of(self._record).make()
        self._made: list[Mapping[str, Any]] = []
        self._uid = ""

    def up(self) -> float:
        """Seconds until the head's pod is ready, which says that Ray answers."""
        started, objects = time.monotonic(), self._objects
        self._apply([objects.run_object()])
        place = ("-n", objects.namespace)
        self._uid = _kubectl("get", "configmap", objects.mark.run_id, *place, "-o", "jsonpath={.metadata.uid}")
        token = RunSecrets.of(self._record).token_file.read_text().strip()
        secret = with_content(objects.token_object(self._uid), token, store_environment())
        self._apply([*objects.owned(self._uid, time.time()).values(), secret, objects.head_pod(self._uid)])
        _kubectl("wait", "--for=condition=Ready", "--timeout=120s", f"pod/{objects.head_name}", *place)
        return time.monotonic() - started

    def worker(self) -> float:
        """Seconds from the request for its pod until Ray has it."""
        objects, settings = self._objects, self._objects.settings()
        cluster, place = cluster_of(objects.section), ("-n", objects.namespace)
        address = _kubectl("get", "pod", objects.head_name, *place, "-o", "jsonpath={.status.podIP}")
        words = ray_words(settings, NodeFolder(Path(HOME)), address, node_options(settings, {}, None))
        owners = objects.head_pod(self._uid)["metadata"]["ownerReferences"]
        with open_forward(cluster, objects.namespace, objects.head_name, bring_up.FORWARDED) as ports:
            connection = bring_up.connection(self._record, address, ports)
            started = time.monotonic()
            self._apply([worker_pod(settings, f"{objects.mark.run_id}-w-1", "", owners, words)])
            while len(alive_nodes(connection)) < 2:
                assert time.monotonic() - started < JOIN_LIMIT_S, "the floor's worker did not join"
                time.sleep(EVERY_S)
            return time.monotonic() - started

    def down(self) -> float:
        """Seconds until all of it is gone."""
        started = time.monotonic()
        _kubectl("delete", "--wait", "-f", "-", told=self._made)
        return time.monotonic() - started

    def _apply(self, manifests: list[Mapping[str, Any]]) -> None:
        self._made = [*manifests, *self._made]
        _kubectl("apply", "--server-side", "-f", "-", told=manifests)


def _kubectl(*words: str, told: list[Mapping[str, Any]] | None = None) -> str:
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": told}) if told else None
    command = [str(programs(Layout.of_environment().cache) / "kubectl"), *words]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_round(dhctl: Dhctl, samples: Samples) -> None:
    """Every measurement once, the floor's first."""
    with tempfile.TemporaryDirectory() as name:
        floor = Floor(Path(name), dhctl.folder / "spec.json")
        samples["floor up"].append(floor.up())
        samples["floor worker"].append(floor.worker())
        samples["floor down"].append(floor.down())
    samples["plan"].append(timed(dhctl, "plan", "spec.json"))
    begun = datetime.now(UTC)
    timed(dhctl, "up", "spec.json")
    record = dhctl.record()
    entries = record.ledger.entries()
    answers, proven = last(entries, "head.ray", "done"), last(entries, "up", "done")
    assert answers is not None
    assert proven is not None
    samples["up"].append((answers.at - begun).total_seconds())
    samples["up, proven"].append((proven.at - begun).total_seconds())
    samples["worker"].append(join(dhctl, record))
    samples["down"].append(timed(dhctl, "down", record.run_id))


def measure(cluster: KubernetesCluster, rounds: int) -> Samples:
    """Every measurement so many times."""
    samples = defaultdict[str, list[float]](list)
    with (
        tempfile.TemporaryDirectory() as name,
        object_store(Path(name) / "s3", MACHINE_ADDRESS) as store,
        tenants_namespace(cluster) as namespace,
    ):
        folder = Path(name)
        os.environ.update({**cluster.env, **store.env})
        env = clean_environment(ensure_engine(default_root(), ignore).parent, folder / "home")
        dhctl = Dhctl(folder / "home", folder, {**env, **cluster.env, **store.env})
        (folder / "job").mkdir()
        (folder / "job" / "main.py").write_text(JOB)
        spec = {
            "name": "bench",
            "target": "kubernetes",
            "lease": "30m",
            "workers": {"max": 1, "memory": "512MiB", "idle_timeout": "10m"},
            "job": {"folder": "job", "entrypoint": "python main.py"},
            "output": store.make_bucket("bench"),
            "kubernetes": {**section(namespace), "ray": "pods"},
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            one_round(dhctl, samples)
    return samples


def main() -> int:
    """Measures, prints, writes. Exit status 1 when a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "benchmarks-kubernetes.md")
    args = parser.parse_args()
    layout = Layout.of_environment()
    testbed = Testbed(layout, print)
    if obstacle := testbed.obstacle():
        print(f"not measured: {obstacle}")
        return 0
    with running(testbed, layout.state):
        samples = measure(KubernetesCluster(layout), args.rounds)
    text, good = page(INTRO, ROWS, samples, args.rounds, NOT_MET)
    print(text)
    args.write.write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
