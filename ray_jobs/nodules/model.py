"""The network: MONAI's DynUNet, one logit a voxel."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dhctl.ray_jobs.nodules.resampling import HU_RANGE
from dhctl.ray_jobs.nodules.settings import Settings

GROUPS = 8

FIRST_BIAS = -2.0
"""Of the output, so that training begins near `no nodule` (probability 0.12): nearly all voxels are none."""


def build_model(settings: Settings) -> nn.Module:
    """The network with fresh weights: (b, 1, z, y, x) of `network_input` -> logits of the same shape.

    Isensee et al., Nature Methods 2021 (nnU-Net), with GroupNorm: few patches a step swing the means of BatchNorm.
    """
    # MONAI takes seconds to import, and reading settings must not wait for it.
    from monai.networks.nets import DynUNet

    stages = len(settings.filters)
    net = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        kernel_size=[3] * stages,
        strides=[1] + [2] * (stages - 1),
        upsample_kernel_size=[2] * (stages - 1),
        filters=list(settings.filters),
        norm_name=("GROUP", {"num_groups": GROUPS}),
    )
    nn.init.constant_(net.output_block.conv.conv.bias, FIRST_BIAS)
    return cast(nn.Module, net)


def network_input(hu: NDArray[np.int16] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """HU (..., z, y, x) to about -1 (air) to 1 (bone), with a channel axis before z."""
    low, high = HU_RANGE
    values = torch.as_tensor(hu, device=device).float()
    return ((values - (low + high) / 2) / ((high - low) / 2)).unsqueeze(-4)
