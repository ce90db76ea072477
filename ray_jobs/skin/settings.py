"""Settings of the skin job: a profile, and what a user changes of it through job.params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from dhctl.ray_jobs.training import settings as core

WHAT_PHANTOMS_ARE = "generated phantoms, not patients"
"""What a result says of generated data."""


class Settings(core.TrainingSettings):
    """All settings of one run."""

    without_effect: ClassVar[frozenset[str]] = core.TrainingSettings.without_effect | {"shard_images"}

    profile: Literal["tiny", "full"] = "tiny"
    """tiny: minutes on two cores, for phantoms and tests. full: GPUs and a set such as ISIC 2019."""
    batch: int = Field(ge=1, alias="batch_images")
    """Pictures per optimiser step over all workers together, whatever their number."""
    table: str | None = None
    """Table of labels or dataset YAML, a path in the data folder; needed where there are several."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Names of the classes, in the order of the outputs; by default those of the table. Another label is refused."""
    encoder: Literal["small", "efficientnet-b0", "efficientnet-b3", "resnet18", "resnet50", "densenet121"]
    """The network; all but small are MONAI's, with GroupNorm."""
    loss: Literal["weighted", "focal"] = "weighted"
    """Against the imbalance of classes: cross entropy weighted by n^-0.75, or the focal loss with gamma 2."""
    store_px: int = Field(ge=32, le=1024)
    """Side of the squares that `prepare` stores: the middle of a picture, its shorter side shrunk to this."""
    input_px: int = Field(ge=32, le=1024)
    """Side of what the network sees: a part of the square in training, the whole square else."""
    smallest_crop: float = Field(default=0.7, gt=0, le=1)
    """Side of the smallest part that is drawn in training, as a share of the square's."""
    tile_format: Literal["jpg", "npy"]
    """How squares lie in shards: jpg (small) or npy (raw, quick to read)."""
    shard_images: int = Field(default=64, ge=1)
    """About how many pictures share a shard."""
    validation_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the lesions that are scored after each epoch; without effect where the data brings its own split."""
    test_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the lesions held out for the result; without effect where the data brings its own split."""
    phantom_lesions: int = Field(default=320, ge=60)
    """With `data: phantoms`: how many lesions are generated, with one to three pictures each."""


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "epochs": 8,
        # Ray Train takes about 2 s to accept a report: an epoch of few seconds would be mostly waiting.
        "draws_per_epoch": 12,
        "batch_images": 16,
        "learning_rate": 3e-3,
        "encoder": "small",
        "store_px": 72,
        "input_px": 64,
        "tile_format": "npy",
        "validation_share": 0.12,
        "test_share": 0.3,
    },
    "full": {
        "epochs": 60,
        "batch_images": 64,
        "learning_rate": 5e-4,
        "encoder": "efficientnet-b0",
        "store_px": 288,
        "input_px": 224,
        "tile_format": "jpg",
        "loader_threads": 8,
        "patience": 12,
    },
}
"""What each profile says where the user says nothing."""


def settings_from(params: Mapping[str, Any]) -> Settings:
    """The profile named in `params`, changed by the rest of them. Raises RefusedInputError, one sentence a problem."""
    return core.settings_from(Settings, PROFILES, params)
