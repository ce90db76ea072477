"""What the benchmarks of the targets in a cloud share: the job, the worker's way into Ray, the page."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Protocol

from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.record import RunRecord
from dhctl.stacks.targets import target_for
from e2e.driver import Dhctl
from testbeds.sharing import shared

DEMAND = "demand at "
EVERY_S, JOIN_LIMIT_S = 0.3, 180.0
JOB = f"""import time, ray
ray.init(log_to_driver=False)
print("{DEMAND}", time.time(), flush=True)
ray.get(ray.remote(num_cpus=1)(lambda: time.sleep(20)).remote())
"""

Samples = dict[str, list[float]]
Row = tuple[str, str, str, float]
"""What, our sample, the floor's, and the goal: a ratio where there is a floor, else seconds; 0: none."""


class ClusterTestbed(Protocol):
    """What a benchmark needs of any of them."""

    def up(self) -> bool:
        """Whether it was brought up now."""

    def down(self) -> None:
        """Stops it."""


@contextmanager
def running(testbed: ClusterTestbed, state: Path) -> Iterator[None]:
    """The testbed is up, and stays so for as long as the block lasts: tests that end meanwhile would stop it."""
    with shared(state) as alone:
        started = testbed.up()
        try:
            yield
        finally:
            if started and alone():
                testbed.down()


def timed(dhctl: Dhctl, *words: str) -> float:
    """Seconds that a verb takes, its process' start among them."""
    started = time.monotonic()
    done = dhctl(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


def join(dhctl: Dhctl, record: RunRecord) -> float:
    """Seconds from the first task, by the driver's clock, which is this machine's, until Ray tells of a worker.

    Looked at through one tunnel, which is open before, as the floor's is.
    """
    with target_for(record.spec.target).connect(record) as connection:
        train = dhctl.start("train", record.run_id, "--json")
        end = time.monotonic() + JOIN_LIMIT_S
        while len(alive_nodes(connection)) < 2:
            assert time.monotonic() < end, f"no worker within {JOIN_LIMIT_S} s"
            time.sleep(EVERY_S)
        joined = time.time()
    told, _ = train.communicate(timeout=180)
    lines = [event["line"] for event in map(json.loads, told.splitlines()) if event.get("event") == "JobLogged"]
    (demanded,) = (float(line.removeprefix(DEMAND)) for line in lines if line.startswith(DEMAND))
    return joined - demanded


def page(
    intro: str, rows: Sequence[Row], samples: Mapping[str, list[float]], rounds: int, not_met: str
) -> tuple[str, bool]:
    """A page of the docs, and whether all goals are met; `not_met` is its end when they are not."""
    day, load = datetime.now(UTC).date().isoformat(), os.getloadavg()[2]
    lines = [
        intro,
        f"{day}, {rounds} rounds, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}.",
        "",
    ]
    lines += ["| what | dhctl | floor | ratio | goal | met |", "|---|---|---|---|---|---|"]
    good = True
    for what, ours, floor, most in rows:
        mine = median(samples[ours])
        base = median(samples[floor]) if floor else 0.0
        ratio = mine / base if floor else 0.0
        met = not most or (ratio <= most if floor else mine < most)
        good &= met
        goal = f"at most {most}" if floor else f"below {most} s" if most else ""
        told = f"{ratio:.2f} ({_spread(samples[ours], samples[floor])})" if floor else ""
        cells = (f"{mine:.1f} s", f"{base:.1f} s" if floor else "", told, goal)
        lines.append(f"| {what} | {' | '.join(cells)} | {'yes' if met else 'NO'} |")
    return "\n".join(lines) + "\n" + ("" if good else not_met), good


def _spread(ours: Sequence[float], floor: Sequence[float]) -> str:
    """The least and the largest ratio of a round: how far the machine itself moved the figure."""
    ratios = [mine / base for mine, base in zip(ours, floor, strict=True)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"
