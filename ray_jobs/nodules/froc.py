"""How well nodules are found: the FROC curve and its summary, CPM; and how well they are outlined.

FROC and CPM as in LUNA16 (Setio et al., Medical Image Analysis 2017): a finding hits a nodule when its centre lies
within the nodule's radius of the nodule's centre; CPM is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false
positives a scan (Niemeijer et al., IEEE TMI 2011). Of several hits of one nodule the best counts and none is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.detection import Blob

FALSE_POSITIVES_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

LEAST_REACH_MM = 2.0
"""A finding hits within this of the smallest nodule too: half a slice of usual scans."""


@dataclass(frozen=True)
class ScanFinding:
    """What was found in one scan."""

    hits: tuple[float, ...]
    """For each nodule the score of its best finding, or -inf where it was missed."""
    false_positives: tuple[float, ...]
    """Scores of the findings that hit nothing."""
    dices: tuple[float, ...] = ()
    """Dice coefficient of each nodule; empty where findings have no outline."""


def matched(found: Sequence[Blob], nodules: Sequence[Blob]) -> ScanFinding:
    """Findings against nodules, both of one scan."""
    hits = np.full(len(nodules), -np.inf)
    false_positives = []
    for blob in found:
        near = [
            number
            for number, nodule in enumerate(nodules)
            if np.linalg.norm(np.subtract(blob.centre_mm, nodule.centre_mm))
            <= max(nodule.diameter_mm / 2, LEAST_REACH_MM)
        ]
        hits[near] = np.maximum(hits[near], blob.score)
        if not near:
            false_positives.append(blob.score)
    return ScanFinding(tuple(float(hit) for hit in hits), tuple(false_positives))


def sensitivities(findings: Sequence[ScanFinding]) -> NDArray[np.float64]:
    """Sensitivity at each of FALSE_POSITIVES_PER_SCAN, interpolated as LUNA16 does; NaN without any nodule.

    MONAI's compute_froc_curve_data leaves out the lowest score, which hides one finding where there are few.
    """
    hits = np.array([hit for finding in findings for hit in finding.hits])
    false = np.array([score for finding in findings for score in finding.false_positives])
    if not len(hits):
        return np.full(len(FALSE_POSITIVES_PER_SCAN), np.nan)
    thresholds = np.unique(np.concatenate([hits[np.isfinite(hits)], false]))[::-1]
    found = np.concatenate([[0], len(hits) - np.searchsorted(np.sort(hits), thresholds)]) / len(hits)
    per_scan = np.concatenate([[0], len(false) - np.searchsorted(np.sort(false), thresholds)]) / len(findings)
    # At equal rates the highest sensitivity is the curve: np.interp would take any of them.
    rates, last = np.unique(per_scan[::-1], return_index=True)
    return np.interp(FALSE_POSITIVES_PER_SCAN, rates, found[::-1][last])


def cpm(findings: Sequence[ScanFinding]) -> float:
    """Mean of the seven sensitivities, 0 to 1; NaN without any nodule."""
    return float(sensitivities(findings).mean())


def mean_dice(findings: Sequence[ScanFinding]) -> float:
    """Mean Dice coefficient over nodules; NaN without any."""
    dices = [dice for finding in findings for dice in finding.dices]
    return float(np.mean(dices)) if dices else float("nan")


def dice_of_nodules(mask: NDArray[np.bool_], labels: NDArray[np.uint8]) -> tuple[float, ...]:
    """For each nodule of `labels`: Dice coefficient with the pieces of `mask` that touch it; 0 where none does."""
    from scipy import ndimage

    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    dices = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        nodule = labels == label
        touching = np.setdiff1d(pieces[nodule], [0])
        shared = int((pieces[nodule] > 0).sum())
        dices.append(2 * shared / (int(nodule.sum()) + int(sizes[touching].sum())) if len(touching) else 0.0)
    return tuple(dices)
