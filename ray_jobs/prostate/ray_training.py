"""The training loop under Ray Train: fixed number of workers, checkpoints in the output, resume by name."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import nn

from dhctl.ray_jobs.environment import JobEnvironment, JobStoppedError
from dhctl.ray_jobs.prostate.loop import train
from dhctl.ray_jobs.prostate.preparation import read_cohort
from dhctl.ray_jobs.prostate.runner import Metrics
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.storage import Store

RELAY_INTERVAL_S = 0.3


class TrainingFailedError(JobStoppedError):
    """Ray Train gave up; the text says why."""


@dataclass(frozen=True)
class WorkerTask:
    """What each train worker is told."""

    settings: Settings
    shards: Store
    cpus: int


class RayRunner:
    """A worker of Ray Train, see runner.Runner."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """See Runner."""
        wrapped: nn.Module = ray.train.torch.prepare_model(model)
        return wrapped

    def latest(self) -> AbstractContextManager[Path | None]:
        """See Runner."""
        checkpoint = ray.train.get_checkpoint()
        return _folder_of(checkpoint) if checkpoint else nullcontext(None)

    def gathered(self, values: list[Any]) -> list[Any]:
        """See Runner."""
        if self.world_size == 1:
            return values
        lists: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(lists, values)
        return [value for part in lists for value in part]

    def report(self, metrics: Metrics, checkpoint: Path | None) -> None:
        """See Runner."""
        ray.train.report(dict(metrics), checkpoint=Checkpoint.from_directory(checkpoint) if checkpoint else None)


class EpochRelay(ray.train.UserCallback):
    """Runs in Ray Train's controller: passes each reported epoch on to the driver, through a file.

    The controller is an actor whose prints reach the driver late, prefixed and sometimes not at all; Ray pins it to the
    driver's node, so both see the same local file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Append the metrics of rank 0; called when the checkpoint is stored."""
        with self._file.open("a") as stream:
            stream.write(json.dumps(metrics[0]) + "\n")


def train_on_ray(
    name: str,
    settings: Settings,
    env: JobEnvironment,
    output: Store,
    shards: Store,
    on_epoch: Callable[[Metrics], None],
) -> dict[str, Any]:
    """Train under `name` in the output; returns the state of the last checkpoint.

    A training of this name that was interrupted goes on from its last checkpoint. Raises TrainingFailedError.
    """
    if output.is_local:
        Path(output.root).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dhctl-epochs-") as folder:
        relay = Path(folder) / "epochs.jsonl"
        relay.touch()
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={"task": WorkerTask(settings, shards, env.worker_cpus)},
            scaling_config=_scaling(env),
            run_config=RunConfig(
                name=name,
                storage_path=output.root,
                storage_filesystem=None if output.is_local else output.filesystem,
                failure_config=FailureConfig(max_failures=settings.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=settings.keep_checkpoints),
                callbacks=[EpochRelay(relay)],  # type: ignore[list-item]  # typed for Train v1, which mypy sees
            ),
        )
        with _relayed(relay, on_epoch):
            try:
                checkpoint = trainer.fit().checkpoint
            except ray.train.TrainingFailedError as error:
                raise TrainingFailedError(_why(error, settings)) from error
    if checkpoint is None:
        raise TrainingFailedError("training ended without a checkpoint; see the job's log for the workers' output")
    with _folder_of(checkpoint) as found:
        assert found is not None
        state: dict[str, Any] = torch.load(found / "state.pt", map_location="cpu", weights_only=True)
    return state


def _work(config: dict[str, Any]) -> None:
    """What each train worker runs."""
    task: WorkerTask = config["task"]
    torch.set_num_threads(task.cpus)
    cohort = read_cohort(task.shards, task.settings)
    train(RayRunner(), cohort.part("train"), cohort.part("validation"), task.shards, task.settings)


def _scaling(env: JobEnvironment) -> ScalingConfig:
    resources: dict[str, float] = {"CPU": env.worker_cpus}
    if env.worker_gpus:
        resources["GPU"] = env.worker_gpus
    # Fixed, not elastic: an elastic request that the cluster's cap cannot meet as a whole starts no worker at all.
    return ScalingConfig(num_workers=env.workers, use_gpu=env.worker_gpus > 0, resources_per_worker=resources)


def _why(error: Exception, settings: Settings) -> str:
    """Ray's error holds the traceback of every rank; its last line is the reason, and the log above has the rest."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f"training stopped for good (max_failures is {settings.max_failures}): {lines[-1] if lines else error!r}; "
        "submit the job again with the same output to go on from its last checkpoint"
    )


@contextmanager
def _folder_of(checkpoint: Checkpoint) -> Iterator[Path | None]:
    with checkpoint.as_directory() as folder:
        yield Path(folder)


@contextmanager
def _relayed(file: Path, on_epoch: Callable[[Metrics], None]) -> Iterator[None]:
    """Call `on_epoch` for each line of the file while the block runs, and for what is left at its end."""
    ended = threading.Event()

    def follow() -> None:
        with file.open() as stream:
            last = False
            while not last:
                last = ended.wait(RELAY_INTERVAL_S)
                for line in stream.read().splitlines():
                    on_epoch(json.loads(line))

    follower = threading.Thread(target=follow, name="epochs", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
