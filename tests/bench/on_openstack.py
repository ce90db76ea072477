"""`make bench` on the OpenStack testbed: dhctl beside a plain openstacksdk script, alternating in one run; medians.

python tests/bench/on_openstack.py [--rounds N] [--write docs/benchmarks-openstack.md]
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
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.clouds import JOB, Samples, join, page, running, timed
from cloud.runs import SECTION
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from dhctl.infra.ledger import last
from e2e.driver import Dhctl, clean_environment
from testbeds.object_store import object_store
from testbeds.openstack.fixtures import OpenStackCloud
from testbeds.openstack.layout import EXTERNAL_ADDRESS, Layout
from testbeds.openstack.plugin.install import install
from testbeds.openstack.testbed import Testbed

ROOT = Path(__file__).resolve().parents[2]
FLOOR = Path(__file__).with_name("openstack_floor.py")
ROWS = (
    ("`dhctl plan` with live quota", "plan", "", 5.0),
    ("`up` to Ray answering on the head / plain script", "up", "floor up", 1.3),
    ("the same, proven closed", "up, proven", "", 0.0),
    ("worker: from demand to alive in Ray / plain script", "worker", "floor worker", 1.3),
    ("`down` with receipt / plain script", "down", "floor down", 1.3),
)
INTRO = """# Benchmarks on OpenStack

Written by `make bench`: dhctl on the testbed (a real OpenStack on one machine) beside the same steps by a plain
openstacksdk script, alternating in one run, medians; in brackets the least and the largest ratio of a round.

`up` and `down` are timed from the start of the process on both sides, a worker from the demand for it (here
the first task's submission, there the request to nova) until Ray lists it. Pulumi's plugin is the tests'
stand-in, unless DHCTL_TEST_OPENSTACK_PLUGIN named the official one.
"""

NOT_MET = """
What the script does not do: Pulumi's CLI starts in `up` and in `down`, and with it the stand-in plugin, a Python
process that starts more slowly than the official one and looks more often; `down` stops the autoscaler, copies logs,
deletes in the order of dependencies, and looks at all lists of the project once more for the receipt. From Pulumi's
first resource to Ray both take as long, but for the half second in which the head gets code and secrets over SSH.
All of it shares two cores with the cloud itself, whose servers boot in 2 s: those of a real one take tens of seconds.
"""


def one_round(dhctl: Dhctl, samples: Samples) -> None:
    """Every measurement once, the floor's first."""
    with tempfile.TemporaryDirectory() as name, _cleaned(dhctl, Path(name)) as folder:
        samples["floor up"].append(_floor(dhctl, "up", folder)[0])
        samples["floor worker"].append(float(_floor(dhctl, "worker", folder)[1]))
        samples["floor down"].append(_floor(dhctl, "down", folder)[0])
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


def _floor(dhctl: Dhctl, step: str, folder: Path) -> tuple[float, str]:
    """Seconds of a step of the floor, its process' start among them, and what it printed."""
    started = time.monotonic()
    command = [sys.executable, str(FLOOR), step, str(folder)]
    done = subprocess.run(command, env=dhctl.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started, done.stdout


@contextmanager
def _cleaned(dhctl: Dhctl, folder: Path) -> Iterator[Path]:
    """Removes what a broken floor left."""
    try:
        yield folder
    finally:
        _floor(dhctl, "clean", folder)


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
    cloud, samples = OpenStackCloud(layout), defaultdict[str, list[float]](list)
    with (
        running(testbed, layout.state),
        tempfile.TemporaryDirectory() as name,
        object_store(Path(name) / "s3", EXTERNAL_ADDRESS) as store,
    ):
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
            one_round(dhctl, samples)
    text, good = page(INTRO, ROWS, samples, args.rounds, NOT_MET)
    print(text)
    args.write.write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
