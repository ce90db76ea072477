"""Training a task of one's own as a job of dhctl: the environment says where and on how many workers."""

from __future__ import annotations

import os
import sys
from typing import Any

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import JobEnvironment, JobStoppedError, RefusedInputError
from dhctl.ray_jobs.storage import open_store
from dhctl.ray_jobs.training.fit import fit, read_model
from dhctl.ray_jobs.training.runner import TrainingOrder
from dhctl.ray_jobs.training.settings import SomeSettings, TrainingSettings, settings_from
from dhctl.ray_jobs.training.task import Task

RESULT_FILE = "result.json"


def read_settings(kind: type[SomeSettings], **defaults: Any) -> SomeSettings:
    """These settings, changed by job.params of the spec. What is refused becomes a sentence and exit code 1."""
    try:
        return settings_from(kind, {"own": defaults}, JobEnvironment.from_env(os.environ, needs_data=False).params)
    except RefusedInputError as error:
        sys.exit(f"refused: {error}")


def run(task: Task, chosen: TrainingSettings) -> dict[str, Any]:
    """Train the task on the cluster that this process was submitted to, or without RAY_ADDRESS in this process.

    The output gets checkpoints, metrics.jsonl, model.pt (`torch.load(...)["model"]` is the state dict of the best
    epoch) and result.json, whose content is reported to dhctl and returned; report.result, called later, replaces it.
    Submitted again with equal settings it goes on from the last checkpoint. What is refused, or stops training for
    good, becomes a sentence and exit code 1.
    """
    try:
        return _run(task, chosen)
    except (RefusedInputError, JobStoppedError) as error:
        sys.exit(f"training ends: {error}")


def _run(task: Task, chosen: TrainingSettings) -> dict[str, Any]:
    env = JobEnvironment.from_env(os.environ, needs_data=False)
    with_ray = bool(os.environ.get("RAY_ADDRESS"))
    if with_ray:
        import ray

        if not ray.is_initialized():
            ray.init()
    output = open_store(env.output)
    name = f"train-{chosen.digest()}"
    fit(TrainingOrder(name, task, chosen, env, output), with_ray)
    saved = read_model(output)
    found = {
        "run": env.run_id,
        "data": env.data,
        "training": name,
        "metric": {"name": task.watched.metric, "value": saved["best_value"]},
        "best_epoch": saved["best_epoch"],
        "epochs": saved["epochs_done"],
        "history": saved["history"],
        "settings": saved["settings"],
    }
    output.write_json(RESULT_FILE, found)
    report.result(found)
    return found
