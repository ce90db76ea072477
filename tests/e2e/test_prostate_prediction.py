"""Inference of the prostate job on a cluster: slides are spread over its workers, a bad one is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import openslide
import pytest

from e2e.driver import Dhctl

TRAINED = {"epochs": 1, "draws_per_epoch": 1, "phantom_patients": 18}


@pytest.mark.thorough
def test_a_folder_of_slides_is_graded_on_workers(dhctl: Dhctl, tmp_path: Path) -> None:
    model = tmp_path / "model"
    words = [sys.executable, "-m", "dhctl.ray_jobs.prostate", "all", "--without-ray", "--data", "phantoms"]
    params = [word for name, value in TRAINED.items() for word in ("--param", f"{name}={value}")]
    subprocess.run([*words, "--output", str(model), *params], env=dhctl.env, check=True, timeout=120)
    (slides,) = model.glob("phantoms-*")
    (slides / "broken.svs").write_bytes(b"not a slide")

    spec = tmp_path / "reading.yaml"
    job = {"name": "prostate", "params": {"stage": "predict", "model_from": str(model)}}
    workers = {"min": 0, "max": 2, "cpus": 1, "memory": "1GiB"}
    spec.write_text(json.dumps({"name": "reading", "workers": workers, "job": job, "data": str(slides)}))
    done = dhctl("run", str(spec), "--json", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    result, found = summary["result"], Path(summary["output"]) / "predictions"
    assert result["slides"] == 24
    assert [row["slide"] for row in result["failed"]] == ["broken"]
    assert len((found / "grades.csv").read_text().splitlines()) == 25
    for kind in ("tissue", "attention", "tumour"):
        openslide.OpenSlide(found / f"phantom-000-0.{kind}.tiff").close()
