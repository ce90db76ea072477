"""The training loop of the prostate job on one worker under dhctl, and the same loop on the same shards without Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from dhctl.infra.record import RunRecord
from dhctl.ray_jobs.report import Progress, parse

EPOCHS = 6
PARAMS = {"profile": "tiny", "seed": 7, "epochs": EPOCHS}


def loop_rates(
    dhctl: Callable[..., float], folder: Path, newest: Callable[[], RunRecord], env: dict[str, str]
) -> tuple[float, float]:
    """Samples per second of the pure loop: under dhctl, without Ray. Medians over the epochs after the first."""
    spec = {
        "name": "bench-loop",
        "workers": {"max": 1, "memory": "1GiB"},
        "job": {"name": "prostate", "params": PARAMS},
        "data": "phantoms",
        "output": "out",
    }
    (folder / "loop.json").write_text(json.dumps(spec))
    print("training under dhctl", flush=True)
    dhctl("run", "loop.json")
    record = newest()
    ours = (record.job_dir(1) / "driver.log").read_text().splitlines()
    print("training without Ray", flush=True)
    bare = folder / "without-ray"
    shutil.copytree(Path(record.output) / "shards", bare / "shards")  # a trained model is not trained again
    return _rate(ours), _rate(_without_ray(bare, folder, env))


def _without_ray(output: Path, folder: Path, env: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", "dhctl.ray_jobs.prostate", "train", "--without-ray"]
    command += ["--data", "phantoms", "--output", str(output), "--workers", "1"]
    for name, value in PARAMS.items():
        command += ["--param", f"{name}={value}"]
    settings = {"DHCTL_WORKER_CPUS": "1", "DHCTL_WORKER_GPUS": "0", "DHCTL_RUN_ID": "bench", "DHCTL_JOB_PARAMS": "{}"}
    done = subprocess.run(
        command, env={**os.environ, **env, **settings}, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the loop without Ray failed: {done.stderr}")
    return done.stdout.splitlines()


def _rate(lines: Iterable[str]) -> float:
    told = [m for m in map(parse, lines) if isinstance(m, Progress) and m.stage == "train"]
    return median(m.metrics["samples_per_s"] for m in told[1:])
