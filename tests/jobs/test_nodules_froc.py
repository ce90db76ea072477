"""Scores by hand, against MONAI's, and of the baseline."""

from __future__ import annotations

import numpy as np
import pytest

from dhctl.ray_jobs.nodules import baseline
from dhctl.ray_jobs.nodules.cohort import Cohort
from dhctl.ray_jobs.nodules.detection import Blob, blobs, nodules_of
from dhctl.ray_jobs.nodules.evaluation import scored
from dhctl.ray_jobs.nodules.froc import (
    FALSE_POSITIVES_PER_SCAN,
    ScanFinding,
    cpm,
    dice_of_nodules,
    matched,
    mean_dice,
    sensitivities,
)
from dhctl.ray_jobs.nodules.shards import PreparedScan, ShardNote
from jobs.sample_scans import GRID, NODULES, chest, labels

MISSED = float("-inf")


def test_findings_hit_within_the_radius() -> None:
    nodules = [Blob((0.0, 0.0, 0.0), 10.0), Blob((50.0, 0.0, 0.0), 3.0)]
    found = [
        Blob((4.9, 0.0, 0.0), 6.0, 0.7),
        Blob((0.0, 3.0, 0.0), 6.0, 0.9),
        Blob((5.1, 0.0, 0.0), 6.0, 0.6),
        Blob((51.9, 0.0, 0.0), 6.0, 0.3),
    ]
    assert matched(found, nodules) == ScanFinding((0.9, 0.3), (0.6,))
    assert matched([], nodules) == ScanFinding((MISSED, MISSED), ())


def test_a_curve_by_hand() -> None:
    # Two scans. From the highest score on: hit, false, hit, false, false; one nodule is missed.
    findings = [ScanFinding((0.9, MISSED), (0.8, 0.5)), ScanFinding((0.7,), (0.6,))]
    found = dict(zip(FALSE_POSITIVES_PER_SCAN, sensitivities(findings), strict=True))
    assert found[0.5] == pytest.approx(2 / 3), "one false positive in two scans, both hits are above it or equal"
    assert found[0.25] == pytest.approx((1 / 3 + 2 / 3) / 2), "between the points, as LUNA16 does"
    assert found[8.0] == pytest.approx(2 / 3)


def test_perfect_and_empty_findings() -> None:
    assert cpm([ScanFinding((0.9,), ()), ScanFinding((0.2, 0.5), ())]) == 1
    assert cpm([ScanFinding((MISSED,), ())]) == 0
    assert cpm([ScanFinding((MISSED,), (0.9, 0.9))]) == 0
    assert np.isnan(cpm([ScanFinding((), (0.4,))]))
    assert np.isnan(mean_dice([ScanFinding((), (0.4,))]))


def test_the_curve_is_monais_but_for_its_lowest_score() -> None:
    from monai.metrics import compute_froc_curve_data, compute_froc_score

    rng = np.random.default_rng(1)
    findings = [
        ScanFinding(tuple(rng.uniform(0.3, 1, 3).round(3)), tuple(rng.uniform(0, 0.9, rng.integers(1, 12)).round(3)))
        for _ in range(20)
    ]
    hits = np.array([hit for finding in findings for hit in finding.hits])
    false = np.array([score for finding in findings for score in finding.false_positives])
    curve = compute_froc_curve_data(false, hits, num_targets=60, num_images=20)
    # The lowest score is far beyond 4 false positives a scan, where MONAI's curve and ours agree.
    assert sensitivities(findings)[:6].mean() == pytest.approx(
        compute_froc_score(*curve, eval_thresholds=FALSE_POSITIVES_PER_SCAN[:6]), abs=0.01
    )


def test_dice_of_each_nodule() -> None:
    mask = labels() == 1
    assert dice_of_nodules(mask, labels()) == (1.0, 0.0)
    mask = mask.copy()
    mask[:2, 0] = True  # a piece that touches no nodule changes no nodule's Dice
    assert dice_of_nodules(mask, labels()) == (1.0, 0.0)
    grown = np.roll(labels() == 1, 1, axis=2) | (labels() == 1)
    assert 0.6 < dice_of_nodules(grown, labels())[0] < 0.95
    assert dice_of_nodules(mask, np.zeros_like(labels())) == ()


def test_blobs_have_place_size_and_score() -> None:
    values = np.where(labels() == 1, 0.9, 0.0).astype(np.float32)
    values[5, 20, 30] = 0.4
    found = blobs(values, 0.1, GRID, least_diameter_mm=0.0)
    assert [round(blob.score, 2) for blob in found] == [0.9, 0.4]
    assert found[0].centre_mm == pytest.approx(GRID.to_patient(NODULES[0]), abs=0.01)
    assert found[0].diameter_mm == pytest.approx(nodules_of(labels(), GRID)[0].diameter_mm)
    assert len(blobs(values, 0.1, GRID, least_diameter_mm=5.0)) == 1
    assert blobs(values, 0.95, GRID, 0.0) == []
    assert nodules_of(labels(0), GRID) == []


def test_the_baseline_finds_nodules_by_threshold_and_size() -> None:
    volume = chest()
    lungs = np.zeros(volume.hu.shape, dtype=bool)
    lungs[:, 8:-8, 7:41] = True
    lungs[:, :, 20:28] = False
    example = baseline.Example(volume, lungs, nodules_of(labels(), GRID))
    threshold = baseline.fitted([example], least_diameter_mm=3.0)
    assert baseline.finding(threshold, example).hits == pytest.approx((0.0, 0.0), abs=0.1)
    assert threshold.diameter_mm == pytest.approx(10, abs=1)


def test_a_result_has_intervals_and_baselines() -> None:
    def scan(name: str, part: str) -> PreparedScan:
        note = ShardNote(name, name, "", "", GRID, GRID.spacing_mm, (Blob((0.0, 0.0, 0.0), 6.0),))
        return PreparedScan(note, f"patient of {name}", part)  # type: ignore[arg-type]

    cohort = Cohort((scan("a", "train"), scan("b", "validation"), *(scan(f"t{i}", "test") for i in range(10))), ())
    by_model = [ScanFinding((0.9 if i % 2 else MISSED,), (0.5,), (0.8 if i % 2 else 0.0,)) for i in range(10)]
    by_threshold = [ScanFinding((MISSED,), (0.5,)) for _ in range(10)]
    found = scored(cohort, by_model, by_threshold, seed=1)
    assert found["metric"]["name"] == "cpm"
    assert found["metric"]["value"] == 0.5
    low, high = found["metric"]["ci95"]
    assert 0.1 <= low < 0.5 < high <= 0.9
    assert found["metric"]["baseline"] == {"name": "threshold, blobs by size", "value": 0.0}
    assert found["dice_per_nodule"]["value"] == 0.4
    assert found["nodules"] == {"train": 1, "validation": 1, "test": 10}
