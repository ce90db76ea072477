"""The random generators of a train worker: seeded per rank, kept in checkpoints."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dhctl.ray_jobs.training.sampler import seed_from


def seed_all(seed: int, seen: int, rank: int) -> None:
    """Seed torch, NumPy and Python for a rank that goes on after `seen` samples."""
    chosen = seed_from(seed, seen, rank)
    torch.manual_seed(chosen)
    np.random.seed(chosen % 2**32)
    random.seed(chosen)


def captured(device: torch.device) -> dict[str, Any]:
    """The state of all generators, as torch.load reads it with weights_only."""
    numbers: Any = np.random.get_state(legacy=True)
    _, key, *rest = numbers
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(key.astype(np.int64)), *rest],
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: Mapping[str, Any], device: torch.device) -> None:
    """Put all generators back to a captured state."""
    torch.set_rng_state(state["torch"].cpu())
    key, *rest = state["numpy"]
    np.random.set_state(("MT19937", key.cpu().numpy().astype(np.uint32), *rest))
    version, numbers, extra = state["python"]
    random.setstate((version, tuple(numbers), extra))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
