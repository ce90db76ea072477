"""The example of the nodules job, as its page gives it."""

from __future__ import annotations

import json

import pytest

from e2e.driver import Dhctl
from unit.test_docs import REPO


@pytest.mark.slow
def test_the_example_beats_its_baseline(dhctl: Dhctl) -> None:
    done = dhctl("run", str(REPO / "examples/nodules-local.yaml"), "--json", timeout_s=420)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    metric = result["metric"]
    assert metric["value"] > metric["baseline"]["value"] + 0.15
    assert metric["ci95"][0] > metric["baseline"]["value"]
    assert result["data"] == "generated phantoms, not patients"
    assert result["workers"]["count"] == 2
