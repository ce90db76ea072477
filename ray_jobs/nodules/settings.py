"""Settings of the nodules job: a profile, and what a user changes of it through job.params."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from dhctl.ray_jobs.training import settings as core

Millimetres = Annotated[float, Field(ge=0.3, le=5.0)]
Voxels = Annotated[int, Field(ge=16, le=256)]
Channels = Annotated[int, Field(ge=8, multiple_of=8)]


class Settings(core.TrainingSettings):
    """All settings of one run. Frozen; unknown keys are refused."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    """Scans are resampled to this distance of voxels along (z, y, x)."""
    patch: tuple[Voxels, Voxels, Voxels]
    """Voxels (z, y, x) of a training patch and of the window that slides over a scan; each a multiple of the network's
    largest stride."""
    batch: int = Field(ge=1, alias="batch_scans")
    """Scans per optimiser step over all workers together; each gives patches_per_scan patches."""
    patches_per_scan: int = Field(ge=1)
    """Patches that are cut from a scan each time it is drawn."""
    nodule_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the patches that hold a nodule; the others hold none or hold one by chance."""
    lookalike_share: float = Field(default=0.3, ge=0, lt=1)
    """Share of the patches around what may be taken for a nodule: vessels, and LUNA16's false candidates."""
    filters: tuple[Channels, ...] = Field(min_length=3)
    """Channels of the network's stages, from the finest on; each stage after the first halves the resolution."""
    window_overlap: float = Field(default=0.25, ge=0, lt=1)
    """Share by which neighbouring windows overlap."""
    least_probability: float = Field(default=0.1, gt=0, lt=1)
    """Voxels above this probability make up candidates, which are scored by the highest probability in them."""
    mask_probability: float = Field(default=0.5, gt=0, lt=1)
    """Voxels above this probability are nodule in masks that are scored or written."""
    least_diameter_mm: float = Field(default=3.0, ge=0)
    """Candidates smaller than this are left out; LUNA16 counts nodules from 3 mm on."""
    nodule_words: tuple[str, ...] = Field(
        default=("nodule", "lesion", "mass", "neoplasm", "tumor", "tumour"), min_length=1
    )
    """A segment of a DICOM-SEG is a nodule when its label or its type has one of these words."""
    validation_share: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the patients whose scans are scored after each epoch."""
    test_share: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the patients held out for the result."""
    phantom_patients: int = Field(default=48, ge=6)
    """With `data: phantoms`: how many patients are generated."""

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        stride = self.stride
        if any(side % stride for side in self.patch):
            raise ValueError(f"patch must be multiples of {stride} voxels with {len(self.filters)} stages")
        if self.nodule_share + self.lookalike_share > 1:
            raise ValueError("nodule_share and lookalike_share are more than 1 together")
        return self

    @property
    def stride(self) -> int:
        """By how much the network's coarsest stage is coarser than its input."""
        return int(2 ** (len(self.filters) - 1))


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "epochs": 6,
        # Ray Train takes about 2 s to accept a report: an epoch of few seconds would be mostly waiting.
        "draws_per_epoch": 5,
        "batch_scans": 4,
        "learning_rate": 1e-2,
        "spacing_mm": (2.0, 2.0, 2.0),
        "patch": (24, 24, 24),
        "patches_per_scan": 2,
        "filters": (8, 16, 32),
        "validation_share": 0.1,
        "test_share": 0.3,
    },
    "full": {
        "epochs": 300,
        "draws_per_epoch": 2,
        "batch_scans": 8,
        "learning_rate": 1e-3,
        "patience": 40,
        "spacing_mm": (1.25, 0.7, 0.7),
        "patch": (80, 128, 128),
        "patches_per_scan": 2,
        "filters": (32, 64, 128, 256, 320),
        "loader_threads": 4,
    },
}
"""What each profile says where the user says nothing."""


def settings_from(params: Mapping[str, Any]) -> Settings:
    """The profile named in `params`, changed by the rest of them. Raises RefusedInputError, one sentence a problem."""
    return core.settings_from(Settings, PROFILES, params)
