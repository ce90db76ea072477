"""From a slide to tiles of its tissue, at the wanted resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest

from dhctl.ray_jobs.prostate.slides import UnreadableSlideError, open_slide, resolution
from dhctl.ray_jobs.prostate.tiles import tile_corners, tissue_tiles
from dhctl.ray_jobs.prostate.tissue import tissue_mask
from jobs.sample_slides import quick_settings, tissue_picture, write_slide


def test_tissue_is_found_and_glass_is_not() -> None:
    mask = tissue_mask(tissue_picture(128, 128))
    assert mask[40:88, 40:88].all()
    assert not mask[:28].any()
    assert not mask[:, :28].any()
    assert not tissue_mask(np.full((64, 64, 3), 240, np.uint8)).any()


@pytest.mark.parametrize("ink", [(20, 140, 60), (30, 60, 190), (20, 20, 25)])
def test_pen_is_dropped_and_does_not_hide_tissue(ink: tuple[int, int, int]) -> None:
    picture = tissue_picture(128, 128)
    picture[:, 4:14] = ink
    picture[60:64, 40:88] = ink
    mask = tissue_mask(picture)
    assert not mask[:, 4:14].any()
    assert not mask[60:64, 40:88].any()
    assert mask[70:88, 40:88].all()


def test_dust_is_dropped() -> None:
    picture = tissue_picture(128, 128)
    picture[5:7, 5:7] = (170, 90, 160)
    assert not tissue_mask(picture)[:20, :20].any()


@pytest.mark.parametrize("um_per_px", [0.5, 1.0])
def test_tiles_have_the_wanted_resolution(tmp_path: Path, um_per_px: float) -> None:
    # Stripes of 8 um: 8 px in a tile of 1 um/px, whatever the resolution of the slide.
    settings = quick_settings(tile_px=64)
    picture = tissue_picture(1024, 1024)
    stripe = int(8 / um_per_px)
    for left in range(256, 768, 2 * stripe):
        picture[256:768, left : left + stripe] = (120, 40, 110)
    write_slide(tmp_path / "s.tiff", picture, um_per_px)
    with open_slide(tmp_path / "s.tiff", 9.0) as slide:
        assert slide.um_per_px == pytest.approx(um_per_px, rel=1e-3)
        tiles = tissue_tiles(slide, settings)
    assert tiles.shape[1:] == (64, 64, 3)
    row = tiles[len(tiles) // 2][32, :, 1] > 65
    assert set(np.diff(np.flatnonzero(np.diff(row))).tolist()) == {8}


def test_tiles_hold_enough_tissue_and_are_thinned_evenly() -> None:
    mask = np.zeros((16, 64), dtype=bool)
    mask[:10] = True  # two rows of tiles of 4 cells, and half of a third: 50 % is not more than 50 %
    every = tile_corners(mask, quick_settings(tile_px=32, max_tiles=100))
    assert every == [(32.0 * column, 32.0 * row) for row in range(2) for column in range(16)]
    assert tile_corners(mask, quick_settings(tile_px=32, max_tiles=3)) == [every[0], every[16], every[31]]


def test_resolution_is_assumed_by_rule() -> None:
    assert resolution({openslide.PROPERTY_NAME_MPP_X: "0.25"}, 0.5) == (0.25, None)
    by_power = resolution({openslide.PROPERTY_NAME_OBJECTIVE_POWER: "40"}, 0.5)
    assert by_power[0] == 0.25
    assert "objective power 40" in str(by_power[1])
    assumed = resolution({openslide.PROPERTY_NAME_MPP_X: "unknown"}, 0.5)
    assert assumed[0] == 0.5
    assert "0.5 um/px is assumed" in str(assumed[1])


def test_no_tissue_and_no_slide_are_said(tmp_path: Path) -> None:
    write_slide(tmp_path / "glass.tiff", np.full((512, 512, 3), 243, np.uint8), 1.0)
    with pytest.raises(UnreadableSlideError, match="no tissue"), open_slide(tmp_path / "glass.tiff", 0.5) as slide:
        tissue_tiles(slide, quick_settings())
    (tmp_path / "broken.tiff").write_bytes(b"II*\0 and nothing more")
    with (
        pytest.raises(UnreadableSlideError, match="OpenSlide cannot read it"),
        open_slide(tmp_path / "broken.tiff", 0.5),
    ):
        pass
