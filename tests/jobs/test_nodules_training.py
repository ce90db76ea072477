"""What training draws and how the model learns from it; no Ray, a few patches."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.cohort import prepare
from dhctl.ray_jobs.nodules.froc import ScanFinding
from dhctl.ray_jobs.nodules.inference import finding, probabilities
from dhctl.ray_jobs.nodules.model import build_model, network_input
from dhctl.ray_jobs.nodules.patches import Patches, WholeScan
from dhctl.ray_jobs.nodules.settings import PROFILES, settings_from
from dhctl.ray_jobs.nodules.task import NoduleTask
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.storage import open_store
from jobs.sample_scans import write_patient

SMALL = {"patch": [16, 16, 16], "filters": [8, 16, 16], "validation_share": 0.25, "test_share": 0.25}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> NoduleTask:
    """A task over three training scans and one for validation."""
    folder = tmp_path_factory.mktemp("nodules")
    for index in range(5):
        write_patient(folder / "data", index)
    settings, shards = settings_from(SMALL), open_store(str(folder / "shards"))
    return NoduleTask(prepare(open_store(str(folder / "data")), shards, settings, InThisProcess()), shards, settings)


def test_patches_follow_from_the_draw_alone(task: NoduleTask) -> None:
    first, again = task.dataset("train").read(0, 5), task.dataset("train").read(0, 5)
    assert isinstance(first, Patches)
    assert isinstance(again, Patches)
    other = task.dataset("train").read(0, 6)
    assert isinstance(other, Patches)
    assert first.hu.shape == (2, 16, 16, 16)
    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.nodule, again.nodule)
    assert not np.array_equal(first.hu, other.hu)


def test_patches_are_balanced(task: NoduleTask) -> None:
    dataset = task.dataset("train")
    drawn = [dataset.read(index % 3, 100 + index) for index in range(60)]
    holding = np.concatenate([patches.nodule.any(axis=(1, 2, 3)) for patches in drawn if isinstance(patches, Patches)])
    assert 0.5 < holding.mean() < 0.9
    brightness = [
        patches.hu[patches.nodule].mean() for patches in drawn if isinstance(patches, Patches) and patches.nodule.any()
    ]
    assert np.mean(brightness) > -300, "mask and scan are cut and turned alike"


def test_validation_reads_whole_scans(task: NoduleTask) -> None:
    scan = task.dataset("validation").read(0, None)
    assert isinstance(scan, WholeScan)
    assert scan.volume.hu.shape == scan.volume.grid.shape
    assert len(scan.nodules) == 2


def test_the_model_begins_near_no_nodule(task: NoduleTask) -> None:
    torch.manual_seed(0)
    model = task.build_model()
    out = torch.sigmoid(model(network_input(np.full((1, 16, 16, 16), -850, dtype=np.int16), CPU)))
    assert out.shape == (1, 1, 16, 16, 16)
    assert out.mean().item() == pytest.approx(0.12, abs=0.06)
    assert not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in model.modules())


def test_the_input_is_centred() -> None:
    hu = np.array([-1000, -300, 400], dtype=np.int16).reshape(1, 3, 1, 1)
    assert network_input(hu, CPU).flatten().tolist() == [-1, 0, 1]
    assert network_input(hu, CPU).shape == (1, 1, 3, 1, 1)


def test_dice_is_taken_over_the_batch(task: NoduleTask) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return torch.where(values > 0.5, 9.0, -9.0)

    hu = np.full((2, 16, 16, 16), -850, dtype=np.float32)
    nodule = np.zeros(hu.shape, dtype=bool)
    nodule[0, 4:8, 4:8, 4:8] = True
    hu[nodule] = 400
    loss = task.step(Fixed(), [Patches(hu, nodule)], CPU).item()
    assert loss < 0.02, "the empty patch costs nothing where the other is right"
    assert task.step(Fixed(), [Patches(hu, np.zeros_like(nodule))], CPU).item() > 0.9


def test_a_few_steps_bring_the_loss_down(task: NoduleTask) -> None:
    torch.manual_seed(0)
    model, dataset = task.build_model(), task.dataset("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(12):
        loss = task.step(model, [dataset.read(index, step) for index in range(3)], CPU)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    scan = dataset.read(0, None)
    assert isinstance(scan, WholeScan)
    found = probabilities(model.eval(), scan.volume, scan.arrays.lungs, task.settings, CPU)
    assert found.shape == scan.volume.hu.shape
    assert found[scan.arrays.labels > 0].mean() > 2 * found[scan.arrays.lungs & (scan.arrays.labels == 0)].mean()
    assert not found[~scan.arrays.lungs].any()
    assert len(finding(model, scan, task.settings, CPU).dices) == 2


def test_metrics_and_pickling(task: NoduleTask) -> None:
    findings = [ScanFinding((0.9,), (), (0.8,)), ScanFinding((float("-inf"),), (), (0.0,))]
    assert task.metrics(findings) == {"validation_dice": 0.4, "validation_cpm": 0.5}
    assert task.watched.metric in task.metrics(findings)
    assert pickle.loads(pickle.dumps(task)).settings == task.settings


def test_profiles_are_accepted() -> None:
    assert settings_from({}).profile == "tiny"
    full = settings_from({"profile": "full"})
    assert full.stride == 16
    assert [settings_from({"profile": name}).profile for name in PROFILES] == list(PROFILES)
    assert settings_from({"batch_scans": 6}).batch == 6


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"patch": [24, 24, 30]}, "patch must be multiples of 4 voxels with 3 stages"),
        ({"nodule_share": 0.8, "lookalike_share": 0.3}, "are more than 1 together"),
        ({"filters": [8, 12]}, "job.params.filters.1"),
        ({"spacing_mm": [2, 2, 9]}, "job.params.spacing_mm.2"),
        ({"nodule_words": []}, "job.params.nodule_words"),
        ({"spacing": [2, 2, 2]}, "did you mean spacing_mm?"),
    ],
)
def test_settings_that_make_no_sense(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(RefusedInputError) as caught:
        settings_from(params)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("module", ["settings", "recipe", "__main__"])
def test_settings_and_help_wait_for_no_library(module: str) -> None:
    code = (
        f"import sys, dhctl.ray_jobs.nodules.{module};"
        "print([m for m in ('torch', 'monai', 'highdicom', 'nibabel', 'scipy', 'ray') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_largest_network_is_built() -> None:
    model = build_model(settings_from({"profile": "full", "filters": [8, 16, 32, 64, 80]}))
    assert sum(weights.numel() for weights in model.parameters()) > 100_000
