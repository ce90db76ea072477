"""Reading whole slides with OpenSlide at a wanted resolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".tiff", ".tif", ".svs", ".mrxs", ".ndpi", ".scn", ".bif", ".vms", ".svslide", ".dcm")
"""File endings taken for slides."""

SINGLE_LENS_UM_PER_PX = 10.0
"""A scan at objective power P has about 10 / P micrometres per pixel (20x: 0.5, 40x: 0.25)."""


class UnreadableSlideError(Exception):
    """A slide cannot be opened or decoded, or holds nothing to use; the text says why."""


@dataclass(frozen=True)
class Slide:
    """An open slide and the resolution of its level 0."""

    handle: openslide.OpenSlide
    um_per_px: float
    """Micrometres per pixel of level 0."""
    note: str | None
    """How the resolution was assumed, where the slide does not say it."""

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in micrometres."""
        width, height = self.handle.dimensions
        return width * self.um_per_px, height * self.um_per_px

    def read(self, x_um: float, y_um: float, width_px: int, height_px: int, um_per_px: float) -> NDArray[np.uint8]:
        """RGB (height_px, width_px, 3) of the region whose upper left corner is at (x_um, y_um).

        Read from the level next finer than wanted, then shrunk; outside the slide and where the scanner has nothing
        is white. Raises openslide.OpenSlideError.
        """
        level = self.handle.get_best_level_for_downsample(um_per_px / self.um_per_px * 1.01)
        level_um = self.um_per_px * self.handle.level_downsamples[level]
        corner = (round(x_um / self.um_per_px), round(y_um / self.um_per_px))
        wanted = (max(1, round(width_px * um_per_px / level_um)), max(1, round(height_px * um_per_px / level_um)))
        region = self.handle.read_region(corner, level, wanted)
        paper = Image.new("RGB", region.size, (255, 255, 255))
        paper.paste(region, mask=region.getchannel("A"))
        if paper.size != (width_px, height_px):
            paper = paper.resize((width_px, height_px), Image.Resampling.BOX)
        return np.asarray(paper)

    def overview(self, um_per_px: float) -> NDArray[np.uint8]:
        """The whole slide as RGB at this resolution."""
        width_um, height_um = self.size_um
        width_px, height_px = max(1, round(width_um / um_per_px)), max(1, round(height_um / um_per_px))
        return self.read(0, 0, width_px, height_px, um_per_px)


@contextmanager
def open_slide(path: Path, assumed_um_per_px: float) -> Iterator[Slide]:
    """Open a slide for a `with` block. Raises UnreadableSlideError, also for what goes wrong in the block's reads."""
    try:
        with openslide.OpenSlide(path) as handle:
            um_per_px, note = resolution(handle.properties, assumed_um_per_px)
            yield Slide(handle, um_per_px, note)
    except (openslide.OpenSlideError, OSError) as error:
        raise UnreadableSlideError(f"OpenSlide cannot read it: {str(error) or type(error).__name__}") from error


def resolution(properties: object, assumed_um_per_px: float) -> tuple[float, str | None]:
    """Micrometres per pixel of level 0, and a note where it is assumed.

    The rule: what the slide says (openslide.mpp-x); else 10 / objective power; else `assumed_um_per_px`.
    """
    found = dict(properties)  # type: ignore[call-overload]  # OpenSlide's own mapping type is not public
    said = _positive(found.get(openslide.PROPERTY_NAME_MPP_X))
    if said:
        return said, None
    power = _positive(found.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
    if power:
        assumed = SINGLE_LENS_UM_PER_PX / power
        return assumed, f"has no resolution; {assumed:g} um/px is assumed from its objective power {power:g}"
    return assumed_um_per_px, f"has no resolution; {assumed_um_per_px:g} um/px is assumed (assumed_um_per_px)"


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if value > 0 else None
