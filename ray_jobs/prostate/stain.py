"""From stored tiles to network input, with the variation that scanners and staining bring."""

from __future__ import annotations

import torch


def normalised(tiles: torch.Tensor) -> torch.Tensor:
    """Tiles (..., px, px, 3) of bytes -> (..., 3, px, px), values from -1 to 1."""
    return tiles.movedim(-1, -3).float() / 127.5 - 1


def jittered(tiles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Input for training from the tiles of one slide (n, px, px, 3) of bytes: stain jitter, flips and turns.

    Stain strength varies in optical density per channel (Tellez et al., "Quantifying the effects of data augmentation
    and stain color normalization", Medical Image Analysis 2019, there in the stains' own space): gain 0.8 to 1.2,
    offset -0.05 to 0.05. `generator` is on the CPU, so that any device draws the same.
    """
    density = -torch.log10((tiles.movedim(-1, -3).float() + 1) / 256)
    gain = 0.8 + 0.4 * torch.rand(3, 1, 1, generator=generator)
    offset = 0.1 * torch.rand(3, 1, 1, generator=generator) - 0.05
    light = 10 ** -(density * gain.to(tiles.device) + offset.to(tiles.device))
    varied = (light * 2 - 1).clamp(-1, 1)
    flip_x, flip_y, turn = (torch.rand(3, generator=generator) < 0.5).tolist()
    dims = [dim for dim, flip in ((-1, flip_x), (-2, flip_y)) if flip]
    varied = varied.flip(dims) if dims else varied
    return varied.transpose(-1, -2) if turn else varied
