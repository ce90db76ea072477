"""The task of the skin job: losses against imbalance, variation, networks, and that it learns."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.skin.augmentation import resized, varied
from dhctl.ray_jobs.skin.losses import class_weights, focal_loss, weighted_loss
from dhctl.ray_jobs.skin.model import build_model
from dhctl.ray_jobs.skin.preparation import prepare
from dhctl.ray_jobs.skin.task import Classification, Sample, predicted
from dhctl.ray_jobs.storage import open_store
from jobs.sample_pictures import quick_settings, write_isic

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
LABELS = torch.tensor([0, 1, 2])


def test_weights_fall_as_n_to_the_three_quarters_and_keep_the_mean_loss() -> None:
    labels = [0] * 80 + [1] * 5
    weights = class_weights(labels, 2)
    assert float(weights[1] / weights[0]) == pytest.approx(16**0.75)
    assert float(weights[torch.tensor(labels)].mean()) == pytest.approx(1)


def test_the_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    weights = torch.tensor([0.5, 2.0, 1.0])
    parts = [float(weighted_loss(LOGITS[n : n + 1], LABELS[n : n + 1], weights)) for n in range(3)]
    assert float(weighted_loss(LOGITS, LABELS, weights)) == pytest.approx(np.mean(parts))
    assert float(weighted_loss(LOGITS, LABELS, torch.ones(3))) == pytest.approx(
        float(functional.cross_entropy(LOGITS, LABELS))
    )


def test_the_focal_loss_looks_away_from_what_is_known() -> None:
    sure, unsure = LOGITS[:1], LOGITS[2:]
    plain = [float(functional.cross_entropy(sure, LABELS[:1])), float(functional.cross_entropy(unsure, LABELS[2:]))]
    focal = [float(focal_loss(sure, LABELS[:1])), float(focal_loss(unsure, LABELS[2:]))]
    assert focal[1] == pytest.approx((2 / 3) ** 2 * plain[1])
    assert focal[0] / plain[0] < 0.1 * focal[1] / plain[1]


def test_variation_follows_from_its_draw_alone() -> None:
    tile = np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)
    first = varied(tile, 32, 0.7, draw=1)
    assert first.shape == (32, 32, 3)
    assert (first == varied(tile, 32, 0.7, draw=1)).all()
    assert (first != varied(tile, 32, 0.7, draw=2)).any()
    assert resized(tile, 48) is tile
    assert resized(tile, 32).shape == (32, 32, 3)


@pytest.mark.parametrize("encoder", ["small", "resnet18", "efficientnet-b0", "densenet121"])
def test_networks_have_no_statistics_of_a_batch(encoder: str) -> None:
    torch.manual_seed(0)
    model = build_model(encoder, 5).eval()
    assert not [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        pictures = torch.rand(2, 3, 64, 64) * 2 - 1
        assert model(pictures).shape == (2, 5)
        assert torch.allclose(model(pictures)[:1], model(pictures[:1]), atol=1e-4)


def test_it_learns_structure_and_can_be_sent(tmp_path: Path) -> None:
    write_isic(tmp_path / "data")
    shards, settings = open_store(str(tmp_path / "shards")), quick_settings()
    prepare(open_store(str(tmp_path / "data")), shards, settings, InThisProcess())
    task: Classification = pickle.loads(pickle.dumps(Classification(settings, shards)))
    torch.manual_seed(0)
    model, data, here = task.build_model(), task.dataset("train"), torch.device("cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        loss = task.step(model, [data.read(n, 100 * step + n) for n in range(len(data))], here)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.3
    model.eval()
    with torch.no_grad():
        validation = task.dataset("validation")
        findings = [task.validate(model, validation.read(n, None), here) for n in range(len(validation))]
    assert task.metrics(findings)["validation_balanced_accuracy"] > 0.6


def test_a_picture_and_its_mirror_image_are_the_same_to_it() -> None:
    model = build_model("small", 3).eval()
    tile = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    with torch.no_grad():
        there = predicted(model, Sample(tile, 0), torch.device("cpu"))
        back = predicted(model, Sample(tile[:, ::-1].copy(), 0), torch.device("cpu"))
    assert there.sum() == pytest.approx(1)
    assert there == pytest.approx(back, abs=1e-6)
