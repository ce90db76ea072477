"""What the model makes of a whole scan: a probability a voxel, nodules, a mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dhctl.ray_jobs.nodules.detection import Blob, blobs
from dhctl.ray_jobs.nodules.froc import ScanFinding, dice_of_nodules, matched
from dhctl.ray_jobs.nodules.model import network_input
from dhctl.ray_jobs.nodules.patches import WholeScan
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.volume import Grid, Volume

WINDOWS_AT_ONCE = 4


def probabilities(
    model: nn.Module, volume: Volume, lungs: NDArray[np.bool_], settings: Settings, device: torch.device
) -> NDArray[np.float32]:
    """Probability of a nodule (z, y, x), 0 outside of the lungs; by a sliding window with Gaussian weights."""
    from monai.inferers import sliding_window_inference

    with torch.no_grad():
        logits: Any = sliding_window_inference(
            inputs=network_input(volume.hu, device)[None],
            roi_size=settings.patch,
            sw_batch_size=WINDOWS_AT_ONCE,
            predictor=model,
            overlap=settings.window_overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=-1.0,
        )
        found: NDArray[np.float32] = torch.sigmoid(logits.float())[0, 0].cpu().numpy()
    return np.where(lungs, found, np.float32(0))


def found_nodules(found: NDArray[np.float32], grid: Grid, settings: Settings) -> list[Blob]:
    """Candidates in a map of probabilities, the most likely first."""
    return blobs(found, settings.least_probability, grid, settings.least_diameter_mm)


def finding(model: nn.Module, scan: WholeScan, settings: Settings, device: torch.device) -> ScanFinding:
    """What the model finds in a scan whose nodules are known."""
    found = probabilities(model, scan.volume, scan.arrays.lungs, settings, device)
    hits = matched(found_nodules(found, scan.volume.grid, settings), scan.nodules)
    return replace(hits, dices=dice_of_nodules(found > settings.mask_probability, scan.arrays.labels))
