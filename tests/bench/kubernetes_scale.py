"""`make bench` of many workers on the Kubernetes testbed, on simulated nodes.

python tests/bench/kubernetes_scale.py [--workers N...] [--write docs/benchmarks-kubernetes-scale.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pods.fixtures import tenants_namespace
from pods.runs import PodRuns
from pods.scale import Scaled, scale

from bench.clouds import running
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from e2e.driver import clean_environment, end_started
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.layout import MACHINE_ADDRESS, Layout
from testbeds.kubernetes.testbed import Testbed
from testbeds.object_store import object_store

ROOT = Path(__file__).resolve().parents[2]
GOALS_S = {100: 60.0}
"""Workers, and within what they all are to run."""
LIMIT_S = 900.0
INTRO = """# Benchmarks on Kubernetes: many workers

Written by `make bench`. The head, Ray's autoscaler and dhctl's node provider are real; the nodes are simulated by kwok,
and no process belongs to a worker, so none joins Ray. Seconds are counted from the demand (`request_resources`) until
the API server tells of the last worker. Calls are those of the head's service account from the demand until all run,
by the API server's own count. The loop is one round of Ray's autoscaler with all workers there, without its pause of
1 s. Pods at the end include those that end: the node controller evicts those of a simulated node whose kubelet kwok
played too slowly, and others replace them.
"""


def measure(cluster: KubernetesCluster, env: Mapping[str, str], bucket: str, workers: int) -> Scaled:
    """One run of so many workers, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as name, tenants_namespace(cluster) as namespace:
        folder = Path(name)
        clean = clean_environment(ensure_engine(default_root(), ignore).parent, folder / "home")
        dhctl = PodRuns(folder / "home", folder, {**clean, **env}, bucket=bucket, namespace=namespace)
        try:
            return scale(dhctl, cluster, workers, workers, LIMIT_S)
        finally:
            end_started(dhctl)


def measure_each(cluster: KubernetesCluster, sizes: Sequence[int]) -> Iterator[Scaled]:
    """One run of each size, one after the other."""
    with tempfile.TemporaryDirectory() as name, object_store(Path(name), MACHINE_ADDRESS) as store:
        env = {**cluster.env, **store.env}
        os.environ.update(env)
        bucket = store.make_bucket("scale")
        for workers in sizes:
            print(f"{workers} workers", flush=True)
            yield measure(cluster, env, bucket, workers)


def page(measured: Sequence[Scaled]) -> tuple[str, bool]:
    """The page, and whether all goals are met."""
    day, load = datetime.now(UTC).date().isoformat(), os.getloadavg()[2]
    lines = [
        INTRO,
        f"{day}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}.",
        "",
        "| workers | all created | all Running | goal | met | calls each | of them lists | loop | pods at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    good = True
    for one in measured:
        goal_s = GOALS_S.get(one.wanted)
        met = goal_s is None or one.running_s < goal_s
        good &= met
        goal = f"below {goal_s:.0f} s | {'yes' if met else 'NO'}" if goal_s else " | "
        calls = f"{one.calls_each:.2f} | {one.calls['list']} in all"
        times = f"{one.created_s:.1f} s | {one.running_s:.1f} s | {goal}"
        lines.append(f"| {one.wanted} | {times} | {calls} | {one.loop_s:.2f} s | {one.workers} |")
    return "\n".join(lines) + "\n", good


def main() -> int:
    """Measures, prints, writes. Exit status 1 when a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "benchmarks-kubernetes-scale.md")
    args = parser.parse_args()
    layout = Layout.of_environment()
    testbed = Testbed(layout, print)
    if obstacle := testbed.obstacle():
        print(f"not measured: {obstacle}")
        return 0
    cluster, measured = KubernetesCluster(layout), list[Scaled]()
    with running(testbed, layout.state):
        for one in measure_each(cluster, args.workers):
            print(one, flush=True)
            measured.append(one)
            text, good = page(measured)
            args.write.write_text(text)  # each time: the next one may be too much for this machine
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
