"""The training loop in one process without Ray: for one machine, and to see what Ray costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dhctl.ray_jobs.environment import JobEnvironment, RefusedInputError
from dhctl.ray_jobs.prostate.loop import train
from dhctl.ray_jobs.prostate.preparation import read_cohort
from dhctl.ray_jobs.prostate.runner import STATE_FILE, Metrics, PlainRunner
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.storage import Store


def train_without_ray(
    name: str,
    settings: Settings,
    env: JobEnvironment,
    output: Store,
    shards: Store,
    on_epoch: Callable[[Metrics], None],
) -> dict[str, Any]:
    """Train in this process, checkpoints in the folder `name` of the output; returns the state of the last one.

    A training of this name that was interrupted goes on. Raises RefusedInputError for an output on S3.
    """
    if not output.is_local:
        raise RefusedInputError("--without-ray keeps its checkpoints in a folder; give a folder as --output, not S3")
    folder = Path(output.path(f"{name}-without-ray"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(env.worker_cpus)
    device = torch.device("cuda" if env.worker_gpus and torch.cuda.is_available() else "cpu")
    runner = PlainRunner(folder, device, settings.keep_checkpoints, on_epoch)
    cohort = read_cohort(shards, settings)
    train(runner, cohort.part("train"), cohort.part("validation"), shards, settings)
    with runner.latest() as found:
        assert found is not None
        state: dict[str, Any] = torch.load(found / STATE_FILE, map_location="cpu", weights_only=True)
    return state
