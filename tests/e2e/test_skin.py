"""The example of the skin job, as its page gives it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.driver import Dhctl
from unit.test_docs import REPO


@pytest.mark.thorough
def test_the_example_beats_its_baseline(dhctl: Dhctl) -> None:
    done = dhctl("run", str(REPO / "examples/skin-local.yaml"), "--json", timeout_s=420)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    result = summary["result"]
    metric = result["metric"]
    assert metric["value"] > metric["baseline"]["value"] + 0.3
    assert metric["ci95"][0] > metric["baseline"]["value"]
    assert result["data"] == "generated phantoms, not patients"
    assert result["workers"]["by_epoch"] == [2] * 8
    assert len((Path(summary["output"]) / "predictions.csv").read_text().splitlines()) == 1 + result["images"]["test"]
