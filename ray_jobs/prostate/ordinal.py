"""Grades as cumulative logits: output k says how likely the grade is above k.

Frank & Hall, "A Simple Approach to Ordinal Classification", ECML 2001, as one network: Cheng, Wang & Pollastri,
"A Neural Network Approach to Ordinal Regression", IJCNN 2008.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from dhctl.ray_jobs.prostate.settings import GRADES

OUTPUTS = GRADES - 1


def cumulative_targets(grades: torch.Tensor) -> torch.Tensor:
    """Grades (b,) 0..5 -> (b, 5) of 0 and 1: entry k is 1 where the grade is above k."""
    levels = torch.arange(OUTPUTS, device=grades.device)
    return (grades[:, None] > levels).float()


def ordinal_loss(logits: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Sum over the batch of the mean binary cross entropy of the 5 questions; logits (b, 5), grades (b,)."""
    targets = cumulative_targets(grades)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / OUTPUTS


def decode(logits: torch.Tensor) -> torch.Tensor:
    """Logits (b, 5) -> grades (b,): the rounded expectation, since E[grade] = sum over k of P(grade > k)."""
    return logits.float().sigmoid().sum(dim=1).round().long()
