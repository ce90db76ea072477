"""Maps of a slide: TIFFs that OpenSlide opens, on the slide's own coordinates, with the model's word on each tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import torch

from dhctl.ray_jobs.prostate.heat_maps import TOLD, Sight, look_at, maps
from dhctl.ray_jobs.prostate.model import SlideGrader, build_model
from dhctl.ray_jobs.prostate.pyramids import pyramid
from dhctl.ray_jobs.prostate.slides import UnreadableSlideError, open_slide
from jobs.sample_slides import quick_settings, tissue_picture, write_slide

HERE = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> SlideGrader:
    torch.manual_seed(0)
    return build_model("small").eval()


def seen(path: Path, model: SlideGrader) -> Sight:
    with open_slide(path, 0.5) as slide:
        return look_at(slide, model, quick_settings(), HERE)


def test_all_tissue_is_looked_at_and_the_grade_is_the_models(tmp_path: Path, model: SlideGrader) -> None:
    write_slide(tmp_path / "s.tiff", tissue_picture(), 1.0)
    sight = seen(tmp_path / "s.tiff", model)
    assert len(sight.corners) == 64, "not thinned to max_tiles: 256 um of tissue, tiles of 32 um"
    assert sight.attention.sum() == pytest.approx(1)
    assert 0 <= sight.tumour.min() <= sight.tumour.max() <= 1
    with open_slide(tmp_path / "s.tiff", 0.5) as slide:
        tiles = np.stack([slide.read(x, y, 32, 32, 1.0) for x, y in sight.corners])
    with torch.no_grad():
        logits = model(torch.from_numpy(tiles).movedim(-1, -3).float()[None] / 127.5 - 1)
    assert sight.expected_grade == pytest.approx(float(logits.sigmoid().sum()), abs=1e-4)
    assert sight.grade == round(sight.expected_grade)


def test_openslide_opens_the_maps_at_the_slides_place(tmp_path: Path, model: SlideGrader) -> None:
    write_slide(tmp_path / "s.tiff", tissue_picture(), 1.0)
    sight = seen(tmp_path / "s.tiff", model)
    found = maps(sight, quick_settings())
    assert set(found) == set(TOLD)
    for name, content in found.items():
        (tmp_path / f"{name}.tiff").write_bytes(content)
        with openslide.OpenSlide(tmp_path / f"{name}.tiff") as opened:
            assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(8.0, rel=1e-3)
            assert opened.dimensions == (64, 64), "512 um at 8 um a pixel"
            values = np.asarray(opened.read_region((0, 0), 0, (64, 64)))[..., 0]
        assert values[:16].max() == 0, "no tissue in the upper quarter"
        assert values[17:47, 17:47].max() > 0
    tumour = np.asarray(openslide.OpenSlide(tmp_path / "tumour.tiff").read_region((16, 16), 0, (4, 4)))[..., 0]
    assert (tumour == round(255 * sight.tumour[0])).all()


def test_large_maps_have_levels(tmp_path: Path) -> None:
    picture = np.zeros((1100, 3000), np.uint8)
    picture[:, 1500:] = 200
    (tmp_path / "map.tiff").write_bytes(pyramid(picture, 8.0, "a map"))
    with openslide.OpenSlide(tmp_path / "map.tiff") as opened:
        assert opened.level_dimensions == ((3000, 1100), (750, 275), (187, 68))
        small = np.asarray(opened.read_region((0, 0), 2, (187, 68)))[..., 0]
    assert small[:, :93].max() == 0
    assert small[:, 95:].min() == 200


def test_a_slide_without_tissue_is_said(tmp_path: Path, model: SlideGrader) -> None:
    write_slide(tmp_path / "s.tiff", np.full((256, 256, 3), 244, np.uint8), 1.0)
    with pytest.raises(UnreadableSlideError, match="no tissue was found"):
        seen(tmp_path / "s.tiff", model)
