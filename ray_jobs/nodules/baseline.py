"""What the model must beat: a threshold in the lungs, and blobs ranked by how close their size is to a nodule's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.detection import Blob, blobs
from dhctl.ray_jobs.nodules.froc import ScanFinding, cpm, matched
from dhctl.ray_jobs.nodules.volume import Volume

NAME = "threshold, blobs by size"

THRESHOLDS_HU = (-650, -550, -450, -350, -250, -150, -50)


@dataclass(frozen=True)
class Threshold:
    """A fitted baseline."""

    hu: int
    """Brighter than this in the lungs makes a blob."""
    diameter_mm: float
    """The most likely size."""
    least_diameter_mm: float
    """Smaller blobs are left out."""

    def find(self, volume: Volume, lungs: NDArray[np.bool_]) -> list[Blob]:
        """Blobs, each scored by minus the distance of its diameter from the most likely one, in logarithms."""
        bright = np.where(lungs, volume.hu, -2000).astype(np.float32)
        found = blobs(bright, self.hu, volume.grid, self.least_diameter_mm)
        return [replace(blob, score=-abs(float(np.log(blob.diameter_mm / self.diameter_mm)))) for blob in found]


@dataclass(frozen=True)
class Example:
    """A scan and its nodules."""

    volume: Volume
    lungs: NDArray[np.bool_]
    nodules: Sequence[Blob]


def fitted(examples: Sequence[Example], least_diameter_mm: float) -> Threshold:
    """The baseline of the best CPM on these scans."""
    sizes = [nodule.diameter_mm for example in examples for nodule in example.nodules]
    tried = [Threshold(hu, float(np.median(sizes)), least_diameter_mm) for hu in THRESHOLDS_HU]
    return max(tried, key=lambda threshold: cpm([finding(threshold, example) for example in examples]))


def finding(threshold: Threshold, example: Example) -> ScanFinding:
    """What the baseline finds in a scan."""
    return matched(threshold.find(example.volume, example.lungs), example.nodules)
