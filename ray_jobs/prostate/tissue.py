"""Where tissue is on a slide: a mask from colour alone, at low resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

MIN_SATURATION = 0.05
"""Below this (0 to 1) nothing counts as tissue: an empty slide would otherwise be split by Otsu within its noise."""

MIN_SPECK_PX = 16
"""Smaller islands of the mask are dust."""


def saturation(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """HSV saturation (0 to 1) of an RGB picture (h, w, 3)."""
    high = rgb.max(axis=-1).astype(np.float64)
    found: NDArray[np.float64] = (high - rgb.min(axis=-1)) / np.maximum(high, 1)
    return found


def pen_marks(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where ink of a marker pen is: green, blue or black, each far from the pink and violet of stained tissue.

    Green and blue: the channel leads red clearly, which haematoxylin (red about as high as green) does not do.
    Black: all channels dark, with no colour. Red ink is left in: it cannot be told from eosin by colour alone.
    """
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    green_ink = (green - red > 25) & (green - blue > -15)
    blue_ink = (blue - red > 70) & (green - red > 10)
    black_ink = (rgb.max(axis=-1) < 60) & (rgb.max(axis=-1) - rgb.min(axis=-1) < 25)
    ink: NDArray[np.bool_] = green_ink | blue_ink | black_ink
    return ink


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tissue of a low-resolution picture (h, w, 3): Otsu's threshold on saturation, pen and dust dropped, holes closed.

    Otsu, "A threshold selection method from gray-level histograms", IEEE SMC 1979. The threshold is found on the pixels
    without pen, because ink is far more saturated than tissue and would pull it up.
    """
    colour, pen = saturation(rgb), ndimage.binary_dilation(pen_marks(rgb), iterations=2)
    clean = colour[~pen]
    if clean.size == 0 or clean.max() - clean.min() < MIN_SATURATION:
        return np.zeros(rgb.shape[:2], dtype=np.bool_)
    mask = (colour > max(threshold_otsu(clean), MIN_SATURATION)) & ~pen
    mask = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3] & ~pen
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, index=np.arange(1, count + 1))
    kept: NDArray[np.bool_] = np.isin(labels, 1 + np.flatnonzero(sizes >= MIN_SPECK_PX))
    return kept
