"""Small slides and cohorts that the tests of the prostate job share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from dhctl.ray_jobs.prostate.settings import Settings, settings_from

TISSUE = (170, 90, 160)


def tissue_picture(height: int = 512, width: int = 512) -> NDArray[np.uint8]:
    """White glass with a block of speckled violet tissue in the middle half."""
    picture = np.full((height, width, 3), 244, np.uint8)
    block = np.array(TISSUE) + np.random.default_rng(0).integers(-15, 15, (height // 2, width // 2, 1))
    picture[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = block
    return picture


def write_slide(path: Path, picture: NDArray[np.uint8], um_per_px: float | None) -> None:
    """A tiled TIFF that OpenSlide opens; without resolution tags where um_per_px is None."""
    tags = {"resolution": (1e4 / um_per_px, 1e4 / um_per_px), "resolutionunit": "CENTIMETER"} if um_per_px else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", metadata=None, **tags)


def quick_settings(**changes: object) -> Settings:
    """The tiny profile made smaller still."""
    small = {"epochs": 2, "draws_per_epoch": 1, "tile_px": 32, "bag_tiles": 4, "eval_tiles": 6, "max_tiles": 8}
    return settings_from({"validation_share": 0.2, "test_share": 0.2, **small, **changes})


def write_cohort(folder: Path, patients: int = 12) -> None:
    """A data folder in PANDA's layout; structure, not colour, follows the grade."""
    rows = ["image_id,data_provider,isup_grade,gleason_score,patient_id"]
    for patient in range(patients):
        picture, grade = tissue_picture(256, 256), patient % 6
        picture[64:192:2] = np.where(grade > 2, 120, picture[64:192:2])
        write_slide(folder / "train_images" / f"slide-{patient}.tiff", picture, 1.0)
        rows.append(f"slide-{patient},radboud,{grade},3+3,patient-{patient}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
