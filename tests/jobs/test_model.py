"""The network, its loss and its answer."""

from __future__ import annotations

import pytest
import torch

from dhctl.ray_jobs.prostate.model import build_model
from dhctl.ray_jobs.prostate.ordinal import cumulative_targets, decode, ordinal_loss
from dhctl.ray_jobs.prostate.stain import jittered, normalised


def test_grades_become_cumulative_questions_and_back() -> None:
    grades = torch.arange(6)
    targets = cumulative_targets(grades)
    assert targets.tolist()[2] == [1, 1, 0, 0, 0]
    assert decode((targets - 0.5) * 20).tolist() == grades.tolist()


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    def loss(said: int) -> float:
        return float(ordinal_loss((cumulative_targets(torch.tensor([said])) - 0.5) * 6, torch.tensor([1])))

    assert loss(1) < loss(2) < loss(5)
    assert ordinal_loss(torch.zeros(3, 5), torch.tensor([0, 3, 5])).item() == pytest.approx(3 * 0.6931, rel=1e-3)


def test_the_model_grades_bags_of_any_size_in_any_order() -> None:
    torch.manual_seed(0)
    model = build_model("small").eval()
    tiles = torch.rand(2, 7, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        logits = model(tiles)
        assert logits.shape == (2, 5)
        assert torch.allclose(logits, model(tiles[:, torch.randperm(7)]), atol=1e-5)
        assert model(tiles[:, :1]).shape == (2, 5)


def test_variation_keeps_shape_and_range_and_follows_its_generator() -> None:
    tiles = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    one, same, other = (jittered(tiles, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == normalised(tiles).shape == (4, 3, 32, 32)
    assert one.min() >= -1
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
