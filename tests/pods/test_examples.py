"""The examples of Kubernetes as they stand, with this site's names: trained on workers' pods, results on S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pods.runs import PodRuns, section

from e2e.driver import assert_trained_on_two
from testbeds.object_store import ObjectStore

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("job", "metric", "margin"),
    [
        ("prostate", "quadratic_weighted_kappa", 0.2),
        ("skin", "balanced_accuracy", 0.3),
        pytest.param("nodules", "cpm", 0.15, marks=pytest.mark.slow),
    ],
)
def test_an_example_trains_on_s3(
    dhctl: PodRuns, kubernetes_s3: ObjectStore, job: str, metric: str, margin: float
) -> None:
    body = yaml.safe_load((EXAMPLES / f"{job}-kubernetes.yaml").read_text())
    body["kubernetes"] = {**body["kubernetes"], **section(dhctl.namespace)}
    body["output"] = f"{dhctl.bucket}/{dhctl.folder.name}"
    (dhctl.folder / "example.json").write_text(json.dumps(body))
    ran = dhctl("run", "example.json", "--json", timeout_s=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert_trained_on_two(ran.stdout, metric, margin)
    kept = kubernetes_s3.objects("runs", f"{dhctl.folder.name}/{dhctl.record().run_id}/")
    assert any(key.endswith("model.pt") for key in kept)
