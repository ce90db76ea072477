"""The training loop in one process without Ray: for one machine, and to see what Ray costs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.allocator import keep_freed_memory
from dhctl.ray_jobs.training.loop import train
from dhctl.ray_jobs.training.runner import PlainRunner, TrainingOrder
from dhctl.ray_jobs.training.task import Metrics


def train_without_ray(order: TrainingOrder, on_epoch: Callable[[Metrics], None]) -> Store:
    """Train in this process; returns where the checkpoints lie, a folder of their own. Raises what `train` raises."""
    checkpoints = order.output.beneath(f"{order.name}-without-ray")
    torch.set_num_threads(order.env.worker_cpus)
    keep_freed_memory()
    device = torch.device("cuda" if order.env.worker_gpus and torch.cuda.is_available() else "cpu")
    train(PlainRunner(checkpoints, device, order.settings.keep_checkpoints, on_epoch), order.task, order.settings)
    return checkpoints
