"""Settings of the prostate job: a profile, and what a user changes of it through job.params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dhctl.ray_jobs.training import settings as core

GRADES = 6
"""ISUP grades 0 to 5."""


class Settings(core.TrainingSettings):
    """All settings of one run."""

    profile: Literal["tiny", "full"] = "tiny"
    """tiny: minutes on two cores, for phantoms and tests. full: GPUs and a cohort such as PANDA."""
    batch: int = Field(ge=1, alias="batch_slides")
    """Slides per optimiser step over all workers together, whatever their number."""
    bag_tiles: int = Field(ge=1)
    """Tiles drawn from a slide in each training step."""
    eval_tiles: int = Field(ge=1)
    """Tiles at most, evenly spaced, with which a slide is graded."""
    encoder: Literal["small", "efficientnet-b0", "densenet121"]
    """Tile encoder; the last two are MONAI's, with GroupNorm."""
    tile_px: int = Field(ge=32, le=1024)
    """Side of a tile in pixels."""
    tile_um_per_px: float = Field(default=1.0, gt=0)
    """Resolution of the tiles, micrometres per pixel."""
    mask_um_per_px: float = Field(default=8.0, gt=0)
    """Resolution of the tissue mask, micrometres per pixel."""
    tissue_share: float = Field(default=0.5, gt=0, lt=1)
    """A tile is kept when more than this share of it is tissue."""
    max_tiles: int = Field(ge=1)
    """Tiles at most of one slide, evenly spaced over its tissue."""
    tile_format: Literal["jpg", "npy"]
    """How tiles lie in shards: jpg (small) or npy (raw, quick to read)."""
    assumed_um_per_px: float = Field(default=0.5, gt=0)
    """Resolution of level 0 where a slide does not say its own; 0.5 is a 20x scan, as PANDA's are."""
    validation_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the patients whose slides are scored after each epoch."""
    test_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the patients held out for the result."""
    phantom_patients: int = Field(default=90, ge=12)
    """With `data: phantoms`: how many patients are generated; every third has two slides."""


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "epochs": 8,
        # Ray Train takes about 2 s to accept a report: an epoch of few seconds would be mostly waiting.
        "draws_per_epoch": 6,
        "batch_slides": 4,
        "bag_tiles": 12,
        "eval_tiles": 24,
        "learning_rate": 1e-3,
        "encoder": "small",
        "tile_px": 64,
        "max_tiles": 24,
        "tile_format": "npy",
        "validation_share": 0.12,
        "test_share": 0.28,
    },
    "full": {
        "epochs": 30,
        "batch_slides": 16,
        "bag_tiles": 36,
        "eval_tiles": 128,
        "learning_rate": 4e-4,
        "encoder": "efficientnet-b0",
        "tile_px": 256,
        "max_tiles": 400,
        "tile_format": "jpg",
        "loader_threads": 4,
    },
}
"""What each profile says where the user says nothing."""


def settings_from(params: Mapping[str, Any]) -> Settings:
    """The profile named in `params`, changed by the rest of them. Raises RefusedInputError, one sentence a problem."""
    return core.settings_from(Settings, PROFILES, params)
