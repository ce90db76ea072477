"""The network: a tile encoder, gated attention over the tiles of a slide, an ordinal head."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from dhctl.ray_jobs.prostate.ordinal import OUTPUTS

FEATURES = 512
"""Length of a tile's description by MONAI's encoders; the small one has 96."""


class GatedAttention(nn.Module):
    """Weighted mean of tile features.

    Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, equation 9.
    """

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.weight = nn.Linear(hidden, 1)

    def weights(self, tiles: torch.Tensor) -> torch.Tensor:
        """(b, n, f) -> how much each tile counts, (b, n, 1); the sum over a slide's tiles is 1."""
        scores = self.weight(torch.tanh(self.value(tiles)) * torch.sigmoid(self.gate(tiles)))
        return torch.softmax(scores, dim=1)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(b, n, f) -> (b, f)."""
        return (self.weights(tiles) * tiles).sum(dim=1)


class SlideGrader(nn.Module):
    """Tiles of slides -> 5 cumulative logits a slide."""

    def __init__(self, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = GatedAttention(features)
        self.head = nn.Linear(features, OUTPUTS)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """(b, n, 3, px, px) with values about -1 to 1 -> (b, 5)."""
        slides, count = tiles.shape[:2]
        described = self.encoder(tiles.flatten(0, 1)).unflatten(0, (slides, count))
        return cast(torch.Tensor, self.head(self.attention(described)))


def build_model(encoder: str) -> SlideGrader:
    """The network with a fresh encoder: small, efficientnet-b0 or densenet121.

    GroupNorm throughout: with a few slides a batch, BatchNorm's validation score swings from epoch to epoch.
    """
    if encoder == "small":
        return SlideGrader(_small_encoder(), 96)
    # MONAI takes seconds to import and the small encoder does without it.
    from monai.networks.nets import DenseNet121, EfficientNetBN

    norm = ("group", {"num_groups": 8})
    if encoder == "densenet121":
        return SlideGrader(DenseNet121(spatial_dims=2, in_channels=3, out_channels=FEATURES, norm=norm), FEATURES)
    net = EfficientNetBN(encoder, spatial_dims=2, in_channels=3, num_classes=FEATURES, pretrained=False, norm=norm)
    return SlideGrader(net, FEATURES)


def _small_encoder() -> nn.Module:
    def block(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, out), nn.ReLU()]

    # No norm before the mean over the tile: it would take out how strong a pattern is in this tile.
    last = [nn.Conv2d(64, 96, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), *last)
