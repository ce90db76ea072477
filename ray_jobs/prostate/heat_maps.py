"""What a trained model sees on a whole slide: a grade, and maps of tissue, attention and tumour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhctl.ray_jobs.prostate.model import SlideGrader
from dhctl.ray_jobs.prostate.ordinal import decode
from dhctl.ray_jobs.prostate.pyramids import pyramid
from dhctl.ray_jobs.prostate.settings import Settings
from dhctl.ray_jobs.prostate.slides import Slide, UnreadableSlideError
from dhctl.ray_jobs.prostate.stain import normalised
from dhctl.ray_jobs.prostate.tiles import all_corners, read_tiles
from dhctl.ray_jobs.prostate.tissue import tissue_mask
from dhctl.ray_jobs.training.loop import precision

TILES_AT_ONCE = 32

Corner = tuple[float, float]

TOLD: Mapping[str, str] = {
    "tissue": "255 where tissue was found",
    "attention": "how much a tile counted for the grade, 255 is the most of this slide; 0 where no tile is",
    "tumour": "probability that a tile seen alone is of a grade above 0, 255 is certain; 0 where no tile is",
}
"""The maps of a slide, and what their values mean."""


@dataclass(frozen=True)
class Sight:
    """What the model makes of a slide."""

    grade: int
    """ISUP grade, 0 to 5."""
    expected_grade: float
    """Sum of the probabilities that the grade is above 0, 1, ... 4."""
    mask: NDArray[np.bool_]
    """Tissue, at mask_um_per_px."""
    corners: tuple[Corner, ...]
    """Upper left corners of the tiles, x and y in micrometres."""
    attention: NDArray[np.float64]
    """How much each tile counted; the sum is 1."""
    tumour: NDArray[np.float64]
    """Probability of a grade above 0 that the head gives to each tile as if it were the slide."""


def look_at(slide: Slide, model: SlideGrader, settings: Settings, device: torch.device) -> Sight:
    """Grade an open slide from all tiles of its tissue. The model is in eval mode and on the device.

    Raises UnreadableSlideError where no tile holds enough tissue.
    """
    mask = tissue_mask(slide.overview(settings.mask_um_per_px))
    corners = all_corners(mask, settings)
    if not corners:
        raise UnreadableSlideError("no tissue was found on it")
    with torch.no_grad(), precision(device):
        features = torch.cat([model.encoder(batch) for batch in _batches(slide, corners, settings, device)])[None]
        weights = model.attention.weights(features)
        logits = model.head((weights * features).sum(dim=1)).float()
        alone = model.head(features[0]).float().sigmoid()
    return Sight(
        grade=int(decode(logits)[0]),
        expected_grade=float(logits.sigmoid().sum()),
        mask=mask,
        corners=tuple(corners),
        attention=weights.flatten().double().cpu().numpy(),
        tumour=alone[:, 0].double().cpu().numpy(),
    )


def maps(sight: Sight, settings: Settings) -> dict[str, bytes]:
    """The maps of a slide by name: pyramidal TIFFs of one channel at mask_um_per_px, with the slide's upper left."""
    values = {"attention": sight.attention / sight.attention.max(), "tumour": sight.tumour}
    painted = {name: _painted(sight, value, settings) for name, value in values.items()}
    levels = {"tissue": sight.mask.astype(np.uint8) * 255, **painted}
    return {name: pyramid(level, settings.mask_um_per_px, TOLD[name]) for name, level in levels.items()}


def _batches(slide: Slide, corners: list[Corner], settings: Settings, device: torch.device) -> Iterator[torch.Tensor]:
    """Input of the encoder, some tiles at a time: a slide may have tens of thousands."""
    for start in range(0, len(corners), TILES_AT_ONCE):
        some = corners[start : start + TILES_AT_ONCE]
        yield normalised(torch.from_numpy(read_tiles(slide, some, settings)).to(device))


def _painted(sight: Sight, values: NDArray[np.float64], settings: Settings) -> NDArray[np.uint8]:
    """Each tile filled with its value (0 to 1), 0 to 255, in the picture of the mask."""
    picture = np.zeros(sight.mask.shape, np.uint8)
    cell = settings.tile_px * settings.tile_um_per_px / settings.mask_um_per_px
    for (x_um, y_um), value in zip(sight.corners, values, strict=True):
        left, top = x_um / settings.mask_um_per_px, y_um / settings.mask_um_per_px
        picture[round(top) : round(top + cell), round(left) : round(left + cell)] = round(255 * value)
    return picture
