"""The network: a small one for the tiny profile, MONAI's for the full one."""

from __future__ import annotations

import torch
from torch import nn

GROUPS = 8
"""Groups of every GroupNorm; all widths of these networks are multiples."""


def build_model(encoder: str, classes: int) -> nn.Module:
    """(b, 3, px, px) with values from -1 to 1 -> logits (b, classes), with fresh weights.

    GroupNorm throughout, where these networks come with BatchNorm: its statistics would be those of one worker's share
    of a batch, so a model trained on eight workers, or on a changing number of them, would be another than that of one.
    """
    if encoder == "small":
        return _small(classes)
    # MONAI takes seconds to import and the small network does without it.
    from monai.networks import nets

    norm = ("group", {"num_groups": GROUPS})
    match encoder:
        case "densenet121":
            net: nn.Module = nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=classes, norm=norm)
        case "resnet18":
            net = _resnet("basic", [2, 2, 2, 2], classes)
        case "resnet50":
            net = _resnet("bottleneck", [3, 4, 6, 3], classes)
        case _:
            net = nets.EfficientNetBN(
                encoder, spatial_dims=2, in_channels=3, num_classes=classes, pretrained=False, norm=norm
            )
    return net


def network_input(tiles: torch.Tensor) -> torch.Tensor:
    """Squares (b, px, px, 3) of bytes -> (b, 3, px, px), values from -1 to 1."""
    return tiles.movedim(-1, -3).float() / 127.5 - 1


def _resnet(block: str, layers: list[int], classes: int) -> nn.Module:
    from monai.networks.nets import ResNet

    net = ResNet(block, layers, [64, 128, 256, 512], 2, 3, conv1_t_stride=2, num_classes=classes)
    # MONAI 1.6 hands its argument `norm` to the first layer alone.
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(GROUPS, child.num_features))
    return net


def _small(classes: int) -> nn.Module:
    def block(into: int, out: int, stride: int = 2) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, stride, padding=1, bias=False), nn.GroupNorm(GROUPS, out), nn.ReLU()]

    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes)]
    return nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), *block(64, 96), *pooled)
