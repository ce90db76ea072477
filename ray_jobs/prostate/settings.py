"""Settings of the prostate job: a profile, and what a user changes of it through job.params."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dhctl.ray_jobs.environment import RefusedInputError

GRADES = 6
"""ISUP grades 0 to 5."""


class Settings(BaseModel):
    """All settings of one run. Frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    profile: Literal["tiny", "full"] = "tiny"
    """tiny: minutes on two cores, for phantoms and tests. full: GPUs and a cohort such as PANDA."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split, the phantoms, the weights and the order of training."""
    epochs: int = Field(ge=1, le=1000)
    """Rounds of training; after each comes a validation score and a checkpoint."""
    draws_per_epoch: int = Field(default=1, ge=1)
    """How often each slide is drawn in an epoch, with other tiles each time."""
    batch_slides: int = Field(ge=1)
    """Slides per optimiser step over all workers together, whatever their number."""
    bag_tiles: int = Field(ge=1)
    """Tiles drawn from a slide in each training step."""
    eval_tiles: int = Field(ge=1)
    """Tiles at most, evenly spaced, with which a slide is graded."""
    learning_rate: float = Field(gt=0)
    """Peak of the one-cycle schedule of AdamW, which counts slides, not steps."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
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
    max_failures: int = Field(default=3, ge=-1)
    """How often training restarts from its last checkpoint after a lost worker; -1 is without end."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the last checkpoints are kept."""
    loader_threads: int = Field(default=0, ge=0)
    """Threads per train worker that read shards ahead; 0 reads each shard once and keeps its tiles in memory."""
    phantom_patients: int = Field(default=90, ge=12)
    """With `data: phantoms`: how many patients are generated; every third has two slides."""

    def digest(self, *names: str) -> str:
        """First 12 hex digits of SHA-256 over the named settings, or over those that change the model."""
        chosen = set(names) or set(type(self).model_fields) - {"max_failures", "keep_checkpoints", "loader_threads"}
        text = json.dumps(self.model_dump(include=chosen), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


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
    profile = params.get("profile", "tiny")
    if profile not in PROFILES:
        raise RefusedInputError(f"job.params.profile is '{profile}'; use one of {', '.join(PROFILES)}")
    unknown = [name for name in params if name not in Settings.model_fields]
    if unknown:
        raise RefusedInputError("; ".join(_unknown(name) for name in unknown))
    try:
        return Settings.model_validate({**PROFILES[profile], **params})
    except ValidationError as error:
        problems = (f"job.params.{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise RefusedInputError("; ".join(problems)) from error


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.0)
    return f"job.params has no setting '{name}'; did you mean {near[0]}?"
