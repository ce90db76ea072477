"""`make bench` on the OpenStack testbed: dhctl beside a plain openstacksdk script, alternating in one run; medians.

python tests/bench/on_openstack.py [--rounds N] [--write docs/benchmarks-openstack.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.openstack_floor import Floor, cleaned
from cloud.runs import SECTION
from cloud.runs import workers as alive_workers
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from dhctl.infra.ledger import last
from dhctl.infra.ssh_tunnel import free_ports
from e2e.driver import Dhctl, clean_environment
from testbeds.openstack.fixtures import OpenStackCloud
from testbeds.openstack.layout import EXTERNAL_ADDRESS, Layout
from testbeds.openstack.object_store import object_store
from testbeds.openstack.plugin.install import install
from testbeds.openstack.testbed import Testbed

ROOT = Path(__file__).resolve().parents[2]
JOB = """print("first line", flush=True)
import time, ray
ray.init(log_to_driver=False)
ray.get(ray.remote(num_cpus=1)(lambda: time.sleep(20)).remote())
"""
ROWS = (
    ("`dhctl plan` with live quota", "plan", "", 5.0),
    ("`up` to Ray answering on the head / plain script", "up", "floor up", 1.3),
    ("the same, proven closed", "up, proven", "", 0.0),
    ("worker: from demand to alive in Ray / plain script", "worker", "floor worker", 1.3),
    ("`down` with receipt / plain script", "down", "floor down", 1.3),
)
"""What, our sample, the floor's, and the goal: a ratio where there is a floor, else seconds; 0: none."""

Samples = dict[str, list[float]]


def one_round(dhctl: Dhctl, cloud: OpenStackCloud, samples: Samples) -> None:
    """Every measurement once, the floor's first."""
    with tempfile.TemporaryDirectory() as folder, cleaned(Floor(cloud.user(), Path(folder))) as floor:
        samples["floor up"].append(floor.up(free_ports(1)[0]))
        samples["floor worker"].append(floor.worker())
        samples["floor down"].append(floor.down())
    samples["plan"].append(_timed(dhctl, "plan", "spec.json"))
    begun = datetime.now(UTC)
    _timed(dhctl, "up", "spec.json")
    record = dhctl.record()
    entries = record.ledger.entries()
    answers, proven = last(entries, "head.ray", "done"), last(entries, "up", "done")
    assert answers is not None
    assert proven is not None
    samples["up"].append((answers.at - begun).total_seconds())
    samples["up, proven"].append((proven.at - begun).total_seconds())
    train = dhctl.start("train", record.run_id, "--json")
    assert train.stdout is not None
    while '"first line"' not in (line := train.stdout.readline()):
        assert line, "the job never began"
    demanded = time.monotonic()
    while alive_workers(record) < 1:
        time.sleep(0.3)
    samples["worker"].append(time.monotonic() - demanded)
    train.communicate(timeout=120)
    samples["down"].append(_timed(dhctl, "down", record.run_id))


def _timed(dhctl: Dhctl, *words: str) -> float:
    started = time.monotonic()
    done = dhctl(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


def table(samples: Samples, rounds: int) -> tuple[str, bool]:
    """The page, and whether all goals are met."""
    day, load = datetime.now(UTC).date().isoformat(), os.getloadavg()[2]
    lines = ["# Benchmarks on OpenStack", "", "Written by `make bench`: dhctl on the testbed (a real OpenStack on one"]
    lines += ["machine) beside the same steps by a plain openstacksdk script, alternating in one run, medians.", ""]
    lines += [
        f"{day}, {rounds} rounds, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}.",
        "",
    ]
    lines += ["| what | dhctl | floor | ratio | goal | met |", "|---|---|---|---|---|---|"]
    good = True
    for what, ours, floor, most in ROWS:
        mine = median(samples[ours])
        base = median(samples[floor]) if floor else 0.0
        ratio = mine / base if floor else 0.0
        met = not most or (ratio <= most if floor else mine < most)
        good &= met
        goal = f"at most {most}" if floor else f"below {most} s" if most else ""
        cells = (f"{mine:.1f} s", f"{base:.1f} s" if floor else "", f"{ratio:.2f}" if floor else "", goal)
        lines.append(f"| {what} | {' | '.join(cells)} | {'yes' if met else 'NO'} |")
    return "\n".join(lines) + "\n", good


def main() -> int:
    """Measures, prints, writes. Exit status 1 when a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "benchmarks-openstack.md")
    args = parser.parse_args()
    layout = Layout.of_environment()
    testbed = Testbed(layout, print)
    if obstacle := testbed.obstacle():
        print(f"not measured: {obstacle}")
        return 0
    started, cloud, samples = testbed.up(), OpenStackCloud(layout), defaultdict[str, list[float]](list)
    try:
        with tempfile.TemporaryDirectory() as name, object_store(Path(name) / "s3", EXTERNAL_ADDRESS) as store:
            folder = Path(name)
            env = clean_environment(ensure_engine(default_root(), ignore).parent, folder / "home")
            dhctl = Dhctl(folder / "home", folder, {**env, **cloud.env, **store.env})
            os.environ.update({**cloud.env, **store.env})
            install(dhctl.home / "plugins", sys.executable)
            (folder / "job").mkdir()
            (folder / "job" / "main.py").write_text(JOB)
            spec = {
                "name": "bench",
                "target": "openstack",
                "lease": "30m",
                "workers": {"max": 1, "memory": "512MiB", "idle_timeout": "10m"},
                "job": {"folder": "job", "entrypoint": "python main.py"},
                "output": store.make_bucket("bench"),
                "openstack": SECTION,
            }
            (folder / "spec.json").write_text(json.dumps(spec))
            for number in range(args.rounds):
                print(f"round {number + 1} of {args.rounds}", flush=True)
                one_round(dhctl, cloud, samples)
    finally:
        if started:
            testbed.down()
    text, good = table(samples, args.rounds)
    print(text)
    args.write.write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
