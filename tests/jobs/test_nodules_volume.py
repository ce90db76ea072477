"""Where voxels lie, and what resampling and the lung mask do with them."""

from __future__ import annotations

import numpy as np
import pytest

from dhctl.ray_jobs.nodules.lungs import lung_box, lung_mask
from dhctl.ray_jobs.nodules.resampling import onto, resampled, resampled_labels
from dhctl.ray_jobs.nodules.volume import Grid, UnusableScanError, Volume, to_hu
from jobs.sample_scans import AXIAL, GRID, NODULES, chest, labels

TURNED = Grid((8, 10, 12), (2.0, 0.8, 0.7), (5.0, -3.0, 9.0), ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)))


def test_indices_and_patient_coordinates_are_inverse() -> None:
    assert TURNED.to_patient([1, 2, 3]) == pytest.approx([5 + 3 * 0.7, -3 - 2 * 0.8, 9 - 2.0])
    index = np.array([[0, 0, 0], [7, 3, 1.5]])
    assert TURNED.to_index(TURNED.to_patient(index)) == pytest.approx(index)


def test_a_cropped_grid_lies_where_it_was() -> None:
    part = TURNED.cropped((slice(2, 6), slice(1, 9), slice(3, 12)))
    assert part.shape == (4, 8, 9)
    assert part.to_patient([1, 1, 1]) == pytest.approx(TURNED.to_patient([3, 2, 4]))


@pytest.mark.parametrize(
    ("shape", "spacing", "direction", "sentence"),
    [
        ((2, 10, 10), (1, 1, 1), AXIAL, "has 2 x 10 x 10 voxels"),
        ((5, 10, 10), (1, 0, 1), AXIAL, "has the spacing 1 x 0 x 1 mm; each must be 0.1 to 10 mm"),
        ((5, 10, 10), (1, 1, float("nan")), AXIAL, "has the spacing 1 x 1 x nan mm"),
        ((5, 10, 10), (25, 1, 1), AXIAL, "has the spacing 25 x 1 x 1 mm"),
        ((5, 10, 10), (1, 1, 1), ((0, 0.5, 1), (0, 1, 0), (1, 0, 0)), "not at right angles"),
        ((5, 10, 10), (1, 1, 1), ((0, 1, 0), (0, 0, 1), (1, 0, 0)), "is not axial"),
    ],
)
def test_headers_that_make_no_sense(shape: tuple, spacing: tuple, direction: tuple, sentence: str) -> None:
    with pytest.raises(UnusableScanError) as caught:
        Grid.checked(shape, spacing, (0, 0, 0), direction)
    assert sentence in str(caught.value)


def test_values_that_are_no_numbers_are_refused() -> None:
    assert to_hu(np.array([-40000.0, 1.6])).tolist() == [-32768, 2]
    with pytest.raises(UnusableScanError, match="not numbers"):
        to_hu(np.array([np.nan]))


def test_resampling_keeps_the_place_of_things() -> None:
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(GRID.shape, GRID.spacing_mm, strict=True)), indexing="ij")
    ramp = Volume((-500 + 3 * z - 2 * y + x).round().astype(np.int16), GRID)
    finer = resampled(ramp, (1.5, 2.0, 2.0))
    assert finer.grid.shape == (23, 49, 59)
    inner = finer.hu[4:-4, 4:-4, 4:-4]
    at = finer.grid.to_patient(np.stack(np.meshgrid(*map(np.arange, finer.grid.shape), indexing="ij"), -1))[
        4:-4, 4:-4, 4:-4
    ]
    x_mm, y_mm, z_mm = np.moveaxis(at - np.asarray(GRID.origin_mm), -1, 0)
    assert np.abs(inner - (-500 + 3 * z_mm - 2 * y_mm + x_mm)).max() <= 1.5


def test_values_are_clipped_to_lung_and_bone() -> None:
    held = resampled(Volume(np.where(labels() > 0, 3000, -3000).astype(np.int16), GRID), (3.0, 2.5, 2.5))
    assert (held.hu.min(), held.hu.max()) == (-1000, 400)


def test_noise_of_thin_slices_is_averaged() -> None:
    noisy = Volume(
        np.random.default_rng(0).normal(0, 100, (60, 20, 20)).astype(np.int16),
        Grid((60, 20, 20), (0.5, 2, 2), (0, 0, 0), AXIAL),
    )
    assert resampled(noisy, (2.5, 2, 2)).hu.std() < 70


def test_a_label_of_one_voxel_survives_coarser_spacing() -> None:
    held = np.zeros((20, 20, 20), dtype=np.uint8)
    held[9, 9, 9], held[2:6, 2:6, 2:6] = 1, 2
    coarse = resampled_labels(held, Grid((20, 20, 20), (1, 1, 1), (0, 0, 0), AXIAL), (2.0, 2.0, 2.0))
    assert np.argwhere(coarse == 1).tolist() == [[4, 4, 4]]
    assert (coarse == 2).sum() == 8


def test_probabilities_go_back_to_the_grid_they_came_from() -> None:
    small = GRID.with_spacing((2.0, 2.0, 2.0))
    box = (slice(2, 15), slice(5, 40), slice(3, 50))
    held = resampled_labels((labels() > 0).astype(np.uint8), GRID, small.spacing_mm)[box].astype(np.float32)
    back = onto(held, small.cropped(box), GRID) > 0.5
    overlap = 2 * (back & (labels() > 0)).sum() / (back.sum() + (labels() > 0).sum())
    assert overlap > 0.8
    assert not onto(held, small.cropped(box), GRID)[:, :3].any(), "nothing outside"


def test_lungs_hold_their_nodules_and_nothing_outside() -> None:
    volume = chest()
    mask = lung_mask(volume)
    assert mask[labels() > 0].all()
    assert all(mask[middle] for middle in NODULES)
    assert not mask[:, :5].any()
    assert mask[0].any(), "a scan may end within the lungs"
    box = lung_box(mask, 2)
    assert mask[box].sum() == mask.sum()
    assert box[2].start < np.argwhere(mask)[:, 2].min()


def test_a_nodule_on_the_wall_is_taken_into_the_lung() -> None:
    hu = chest(0).hu.copy()
    hu[5:8, 18:22, 7:10] = 40
    assert lung_mask(Volume(hu, GRID))[5:8, 18:22, 8:10].all(), "but for its foot, where the ball hangs through"


@pytest.mark.parametrize("hu", [40, -1000])
def test_no_lungs(hu: int) -> None:
    with pytest.raises(UnusableScanError, match="shows no lungs: 0 ml of air in the body"):
        lung_mask(Volume(np.full((5, 20, 20), hu, dtype=np.int16), Grid((5, 20, 20), (3, 3, 3), (0, 0, 0), AXIAL)))
