"""From stored squares to what the network sees, with the variation that cameras and positions bring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAIN = (0.85, 1.15)
"""By how much the light of each colour channel varies: lamps and white balance of dermatoscopes differ."""


def resized(tile: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The whole square (px, px, 3) at another size, without variation."""
    if tile.shape[0] == side_px:
        return tile
    return np.asarray(Image.fromarray(tile).resize((side_px, side_px), Image.Resampling.BILINEAR))


def varied(tile: NDArray[np.uint8], side_px: int, smallest_crop: float, draw: int) -> NDArray[np.uint8]:
    """A part of the square (px, px, 3) for training, (side_px, side_px, 3): placed, flipped, turned and lit at random.

    The part is a square with a side from `smallest_crop` of the whole to the whole. Lesions have no up or down, so all
    eight flips and quarter turns are alike. The same `draw` gives the same part.
    """
    rng = np.random.default_rng(draw)
    whole = tile.shape[0]
    side = rng.uniform(smallest_crop, 1) * whole
    left, top = rng.uniform(0, whole - side, 2)
    box = (left, top, left + side, top + side)
    # Pillow lets go of the interpreter lock here: reader threads work side by side.
    part = np.asarray(Image.fromarray(tile).resize((side_px, side_px), Image.Resampling.BILINEAR, box=box))
    turned = np.rot90(part, int(rng.integers(4)))
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    lit: NDArray[np.uint8] = (turned * rng.uniform(*GAIN, 3)).clip(0, 255).astype(np.uint8)
    return lit
