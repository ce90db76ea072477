"""Training rates: the prostate job with and without Ray, and a job bound by computing beside a bare loop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dhctl.infra.record import RunRecord
from dhctl.ray_jobs.report import Progress, parse

EPOCHS = 6
PARAMS = {"profile": "tiny", "seed": 7, "epochs": EPOCHS}
COMPUTE = Path(__file__).with_name("compute")


@dataclass(frozen=True)
class Rates:
    """Samples per second of the pure loop; medians over the epochs after the first."""

    job: float
    """The prostate job on one worker under dhctl."""
    job_without_ray: float
    bare: float
    """A loop anyone would write, in one process."""
    bare_twice: float
    """Two such processes at once, their rates added: what this machine's cores give together."""
    one: float
    """The same steps on the core, on one worker."""
    two: float
    """And on two workers with the same global batch."""


@dataclass(frozen=True)
class Bench:
    """How to run dhctl, and where."""

    dhctl: Callable[..., float]
    folder: Path
    newest: Callable[[], RunRecord]
    env: dict[str, str]

    def rate(self, spec: dict[str, Any]) -> float:
        """Of the job of a spec."""
        name = f"{spec['name']}.json"
        (self.folder / name).write_text(json.dumps({"workers": {"memory": "1GiB"}, "output": "out", **spec}))
        self.dhctl("run", name)
        return _rate((self.newest().job_dir(1) / "driver.log").read_text().splitlines())

    def without_dhctl(self, command: list[str], **settings: str) -> float:
        """Of a process of its own."""
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **self.env, **settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the loop without dhctl failed: {done.stderr}")
        return _rate(done.stdout.splitlines())


def training_rates(bench: Bench) -> Rates:
    """All of them, one after the other."""
    job = _prostate(bench)
    job_without_ray = _prostate_without_ray(bench)
    print("a bare loop, two at once, the core on one worker and on two", flush=True)
    bare = _bare(bench)
    with ThreadPoolExecutor(2) as loops:
        bare_twice = sum(loops.map(lambda _: _bare(bench), range(2)))
    one, two = (bench.rate(_compute_spec(workers)) for workers in (1, 2))
    return Rates(job, job_without_ray, bare, bare_twice, one, two)


def _bare(bench: Bench) -> float:
    return bench.without_dhctl([str(COMPUTE / "main.py"), "--bare"], OMP_NUM_THREADS="1")


def _compute_spec(workers: int) -> dict[str, Any]:
    return {
        "name": f"bench-{workers}",
        "workers": {"max": workers, "memory": "1GiB"},
        "job": {"folder": str(COMPUTE), "entrypoint": "python main.py"},
    }


def _prostate(bench: Bench) -> float:
    print("training under dhctl", flush=True)
    job = {"name": "prostate", "params": PARAMS}
    return bench.rate({"name": "bench-loop", "workers": {"max": 1, "memory": "1GiB"}, "job": job, "data": "phantoms"})


def _prostate_without_ray(bench: Bench) -> float:
    print("training without Ray", flush=True)
    output = bench.folder / "without-ray"
    shutil.copytree(Path(bench.newest().output) / "shards", output / "shards")  # a trained model is not trained again
    command = ["-m", "dhctl.ray_jobs.prostate", "train", "--without-ray"]
    command += ["--data", "phantoms", "--output", str(output), "--workers", "1"]
    for name, value in PARAMS.items():
        command += ["--param", f"{name}={value}"]
    settings = {"DHCTL_WORKER_CPUS": "1", "DHCTL_WORKER_GPUS": "0", "DHCTL_RUN_ID": "bench", "DHCTL_JOB_PARAMS": "{}"}
    return bench.without_dhctl(command, **settings)


def _rate(lines: Iterable[str]) -> float:
    told = [m for m in map(parse, lines) if isinstance(m, Progress) and m.stage == "train"]
    # The first tells of 0 epochs or of the first one, which warms up.
    return median(m.metrics["samples_per_s"] for m in told if m.step > 1)
