"""One of two processes that train together over gloo: python two_ranks.py RANK MEETING_FILE FOLDER EPOCHS.

A test starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dhctl.ray_jobs.storage import open_store
from dhctl.ray_jobs.training.loop import train
from dhctl.ray_jobs.training.runner import PlainRunner
from dhctl.ray_jobs.training.task import Metrics
from jobs.sample_task import Sides, settings


class GlooRunner(PlainRunner):
    """As RayRunner does, without Ray."""

    world_size = 2

    def wrapped(self, model: nn.Module) -> nn.Module:
        """With gradients averaged."""
        return DistributedDataParallel(model)

    def gathered(self, values: list[Any]) -> list[Any]:
        """From both."""
        lists: list[Any] = [None, None]
        dist.all_gather_object(lists, values)
        return lists[0] + lists[1]

    def report(self, metrics: Metrics, folder: Path | None) -> None:
        """Both wait until the checkpoint lies there."""
        super().report(metrics, folder)
        dist.barrier()


rank, meeting, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
runner = GlooRunner(open_store(folder), torch.device("cpu"), 9, lambda _: None)
runner.rank = rank
train(runner, Sides(restless=False), settings(epochs=int(sys.argv[4])))
dist.destroy_process_group()
