"""The training loop under Ray Train: checkpoints in the output, resume by name, a lost worker is replaced."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import nn

from dhctl.ray_jobs.environment import JobEnvironment, JobStoppedError, RefusedInputError
from dhctl.ray_jobs.storage import Store, lasting_filesystem
from dhctl.ray_jobs.training import allocator, checkpoint
from dhctl.ray_jobs.training.loop import train
from dhctl.ray_jobs.training.runner import TrainingOrder
from dhctl.ray_jobs.training.shares import Claim, SharedScaling
from dhctl.ray_jobs.training.task import Metrics

RELAY_INTERVAL_S = 0.3


class TrainingFailedError(JobStoppedError):
    """Ray Train gave up; the text says why."""


class RayRunner:
    """A worker of Ray Train, see runner.Runner."""

    def __init__(self, checkpoints: Store) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.checkpoints = checkpoints

    def wrapped(self, model: nn.Module) -> nn.Module:
        """See Runner."""
        wrapped: nn.Module = ray.train.torch.prepare_model(model)
        return wrapped

    def gathered(self, values: list[Any]) -> list[Any]:
        """See Runner."""
        if self.world_size == 1:
            return values
        lists: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(lists, values)
        return [value for part in lists for value in part]

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """See Runner."""
        ray.train.report(
            dict(metrics),
            checkpoint=Checkpoint.from_directory(folder) if folder else None,
            checkpoint_dir_name=checkpoint.name_of(int(metrics["epoch"])),  # rank 0's counts
        )


class Watcher(ray.train.UserCallback):
    """Runs in Ray Train's controller: passes epochs on to the driver, and ends what would fail again.

    The controller is an actor whose prints reach the driver late, prefixed and sometimes not at all; Ray pins it to the
    driver's node, so both see the same local file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Append the metrics of rank 0; called when the checkpoint is stored."""
        with self._file.open("a") as stream:
            stream.write(json.dumps(metrics[0]) + "\n")

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise what is a verdict on the input, not an accident: Ray does not retry after a callback's error."""
        for error in worker_exceptions.values():
            if isinstance(error, RefusedInputError | JobStoppedError):
                raise error


def train_on_ray(order: TrainingOrder, on_epoch: Callable[[Metrics], None]) -> Store:
    """Train on the cluster; returns where the checkpoints lie, the folder `order.name` of the output.

    A training of this name that was interrupted goes on from its newest whole checkpoint. Raises TrainingFailedError,
    and RefusedInputError or JobStoppedError as `train` does.
    """
    output = order.output
    if output.is_local:
        Path(output.root).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dhctl-epochs-") as folder:
        relay = Path(folder) / "epochs.jsonl"
        relay.touch()
        scaling = _scaling(order)
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={"order": order},
            scaling_config=scaling,
            run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees Train v1
                name=order.name,
                storage_path=output.root,
                storage_filesystem=None if output.is_local else lasting_filesystem(output),
                failure_config=FailureConfig(max_failures=order.settings.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=order.settings.keep_checkpoints),
                worker_runtime_env={"env_vars": allocator.ENVIRONMENT},
                callbacks=[Watcher(relay)],  # type: ignore[list-item]  # mypy sees Train v1
            ),
        )
        run_id: str = trainer.train_run_context.run_id  # type: ignore[attr-defined]  # mypy sees Train v1
        with _relayed(relay, on_epoch), _claimed(scaling, run_id, order.env):
            _fit(trainer, order)
    return output.beneath(order.name)


def _fit(trainer: Any, order: TrainingOrder) -> None:
    try:
        trainer.fit()
    except ray.train.ControllerError as error:
        if isinstance(error.controller_failure, RefusedInputError | JobStoppedError):
            raise error.controller_failure from None
        raise TrainingFailedError(_why(error, order)) from error
    except ray.train.TrainingFailedError as error:
        raise TrainingFailedError(_why(error, order)) from error


def _work(config: dict[str, Any]) -> None:
    """What each train worker runs."""
    order: TrainingOrder = config["order"]
    torch.set_num_threads(order.env.worker_cpus)
    allocator.keep_freed_memory()
    train(RayRunner(order.output.beneath(order.name)), order.task, order.settings)


def _scaling(order: TrainingOrder) -> ScalingConfig:
    env = order.env
    resources: dict[str, float] = {"CPU": env.worker_cpus}
    if env.worker_gpus:
        resources["GPU"] = env.worker_gpus
    size: dict[str, Any] = {"use_gpu": env.worker_gpus > 0, "resources_per_worker": resources}
    if not env.is_elastic:
        return ScalingConfig(num_workers=env.workers, **size)
    size["num_workers"] = (env.least_workers, env.workers)
    size["elastic_resize_monitor_interval_s"] = order.settings.resize_interval_s
    return SharedScaling(capacity=env.cluster_workers or env.workers, **size)


@contextmanager
def _claimed(scaling: ScalingConfig, run_id: str, env: JobEnvironment) -> Iterator[None]:
    """While the block runs, an elastic training has its share of the cluster."""
    if not isinstance(scaling, SharedScaling):
        yield
        return
    assert env.least_workers is not None
    scaling.claim = Claim(f"train-{run_id}", time.time(), env.least_workers, env.workers)
    try:
        yield
    finally:
        scaling.release()


def _why(error: Exception, order: TrainingOrder) -> str:
    """Ray's error holds the traceback of every rank; its last line is the reason, and the log above has the rest."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f"training stopped for good (max_failures is {order.settings.max_failures}): "
        f"{lines[-1] if lines else error!r}; submit the job again with the same output to go on from its last "
        "checkpoint"
    )


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
