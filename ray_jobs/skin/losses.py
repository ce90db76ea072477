"""Losses against the imbalance of classes: some are a hundred times as frequent as others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

EXPONENT = 0.75
"""Weights fall with the count n of a class as n^-0.75. That is between none (0) and full balance (1), with which a
dozen pictures of a rare class would rule the training."""

GAMMA = 2.0
"""Focus of the focal loss, its authors' choice."""


def class_weights(labels: Sequence[int], classes: int) -> torch.Tensor:
    """Weight of each class (classes,), n^-0.75, scaled so that the mean over these labels is 1.

    Each class must be among the labels.
    """
    counts = np.bincount(labels, minlength=classes).astype(float)
    weights = counts**-EXPONENT
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over the pictures of weight x cross entropy; logits (b, classes), labels (b,).

    Not divided by the weights in the batch, as torch's own weighting is: the mean of shares would then not be that of
    the whole batch.
    """
    return (weights[labels] * functional.cross_entropy(logits, labels, reduction="none")).mean()


def focal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the pictures of (1 - p)^2 x cross entropy, where p is the probability given to the label.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4.
    """
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    return ((1 - torch.exp(-entropy)) ** GAMMA * entropy).mean()
