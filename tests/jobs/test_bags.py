"""Slides as samples of the training core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dhctl.ray_jobs.prostate.bags import Bags
from dhctl.ray_jobs.prostate.shards import Bag, ShardNote, write_shard
from dhctl.ray_jobs.storage import open_store
from jobs.sample_slides import quick_settings


def test_a_draw_follows_from_its_seed_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    note = ShardNote("k", "s", "", "", 9, 1.0, None, (0.0, 0.0, 0.0))
    write_shard(store, note, np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8), "npy")
    kept, streamed = (
        Bags([Bag(note, "p", 3, "train")], store, quick_settings(loader_threads=threads)) for threads in (0, 2)
    )
    one, again, other = kept.read(0, 5), streamed.read(0, 5), kept.read(0, 6)
    assert torch.equal(one.tiles, again.tiles)
    assert (one.seed, one.grade) == (again.seed, 3)
    assert one.seed != other.seed
    assert len(one.tiles) == quick_settings().bag_tiles
    assert kept.read(0, None).tiles[:, 0, 0, 0].tolist() == [0, 2, 3, 5, 6, 8]
