"""The evaluate stage: how well nodules of held-out patients are found and outlined, beside a threshold."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dhctl.ray_jobs import report
from dhctl.ray_jobs.nodules import baseline
from dhctl.ray_jobs.nodules.baseline import Example, fitted
from dhctl.ray_jobs.nodules.cohort import Cohort
from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.froc import (
    FALSE_POSITIVES_PER_SCAN,
    ScanFinding,
    cpm,
    dice_of_nodules,
    matched,
    mean_dice,
    sensitivities,
)
from dhctl.ray_jobs.nodules.inference import found_nodules, probabilities
from dhctl.ray_jobs.nodules.model import build_model
from dhctl.ray_jobs.nodules.patches import WholeScan, read_whole
from dhctl.ray_jobs.nodules.settings import Settings
from dhctl.ray_jobs.nodules.shards import ShardReader
from dhctl.ray_jobs.pipeline.intervals import bootstrap_interval
from dhctl.ray_jobs.pipeline.split import PARTS
from dhctl.ray_jobs.storage import Store

FINDINGS_FILE = "findings.csv"
DIGITS = 4

FITTED_ON = 40
"""Training scans at most on which the baseline is fitted: it has two numbers to learn."""


def evaluated(
    cohort: Cohort, shards: Store, output: Store, settings: Settings, state: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """The scores of a result; findings.csv goes to the output, one line a finding."""
    model = build_model(settings)
    model.load_state_dict(dict(state))
    model.to(device).eval()
    reader = ShardReader(shards)
    threshold = fitted(
        [_example(read_whole(reader, scan.shard)) for scan in cohort.part("train")[:FITTED_ON]],
        settings.least_diameter_mm,
    )
    test = cohort.part("test")
    by_model, by_threshold, rows = [], [], []
    for done, prepared in enumerate(test, start=1):
        scan = read_whole(reader, prepared.shard)
        found = probabilities(model, scan.volume, scan.arrays.lungs, settings, device)
        nodules = found_nodules(found, scan.volume.grid, settings)
        dices = dice_of_nodules(found > settings.mask_probability, scan.arrays.labels)
        by_model.append(replace(matched(nodules, scan.nodules), dices=dices))
        by_threshold.append(baseline.finding(threshold, _example(scan)))
        rows += [
            (prepared.shard.scan, nodule, bool(np.isfinite(matched([nodule], scan.nodules).hits).any()))
            for nodule in nodules
        ]
        report.progress("evaluate", done, len(test), unit="scan")
    _write_findings(output, rows)
    return scored(cohort, by_model, by_threshold, settings.seed)


def scored(
    cohort: Cohort, by_model: Sequence[ScanFinding], by_threshold: Sequence[ScanFinding], seed: int
) -> dict[str, Any]:
    """The parts of a result, from findings in the scans of the test part."""
    patients = [scan.patient for scan in cohort.part("test")]
    curve = {
        f"{rate:g}": round(float(value), DIGITS)
        for rate, value in zip(FALSE_POSITIVES_PER_SCAN, sensitivities(by_model), strict=True)
    }
    baselines = [
        {"name": baseline.NAME, "value": round(cpm(by_threshold), DIGITS)},
        {"name": "nothing found", "value": 0.0},
    ]
    return {
        "metric": {
            "name": "cpm",
            "value": round(cpm(by_model), DIGITS),
            "ci95": _interval(patients, by_model, cpm, seed),
            "baseline": baselines[0],
            "baselines": baselines,
        },
        "sensitivity_at_false_positives_per_scan": curve,
        "dice_per_nodule": {
            "value": round(mean_dice(by_model), DIGITS),
            "ci95": _interval(patients, by_model, mean_dice, seed),
        },
        "scans": {part: len(cohort.part(part)) for part in PARTS},
        "patients": {part: len({scan.patient for scan in cohort.part(part)}) for part in PARTS},
        "nodules": {part: sum(len(scan.shard.nodules) for scan in cohort.part(part)) for part in PARTS},
    }


def _interval(patients: Sequence[str], findings: Sequence[ScanFinding], metric: Any, seed: int) -> list[float]:
    low, high = bootstrap_interval(patients, lambda rows: metric([findings[row] for row in rows]), seed)
    return [round(low, DIGITS), round(high, DIGITS)]


def _example(scan: WholeScan) -> Example:
    return Example(scan.volume, scan.arrays.lungs, scan.nodules)


def _write_findings(output: Store, rows: Sequence[tuple[str, Blob, bool]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["series", "x_mm", "y_mm", "z_mm", "diameter_mm", "probability", "is_nodule"])
    for scan, nodule, hit in rows:
        place = [f"{value:.1f}" for value in (*nodule.centre_mm, nodule.diameter_mm)]
        table.writerow([scan, *place, f"{nodule.score:.4f}", int(hit)])
    output.write(FINDINGS_FILE, text.getvalue().encode())
