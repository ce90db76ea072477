"""The training core on real workers: elastic trainings side by side, a lost worker, an end that is not tried again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from e2e.driver import Dhctl


def outputs(dhctl: Dhctl) -> Path:
    return Path(dhctl.record().output)


def epochs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def driver_log(dhctl: Dhctl, case: str) -> str:
    """Of tests/e2e/jobs/sides.py, run to its good end on a cluster of two workers."""
    job = {"entrypoint": f"python sides.py {case}", "workers": {"min": 1, "max": 2}}
    ran = dhctl("run", dhctl.spec("sides", job=job), timeout_s=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (dhctl.record().job_dir(1) / "driver.log").read_text()


@pytest.mark.slow
def test_two_elastic_trainings_share_a_cluster(dhctl: Dhctl) -> None:
    """The second comes while the first has both workers: it gets one of them, and ends long before the first."""
    log = driver_log(dhctl, "share")
    ended = dict(re.findall(r"^(first|second) trained on .* ended at (\S+)$", log, re.MULTILINE))
    assert float(ended["second"]) < float(ended["first"]), log
    first, second = epochs(outputs(dhctl) / "first"), epochs(outputs(dhctl) / "second")
    assert [epoch["epoch"] for epoch in first] == list(range(1, 15))
    assert [epoch["epoch"] for epoch in second] == [1, 2]
    assert {epoch["workers"] for epoch in first} == {1, 2}, "it gave one away"


@pytest.mark.slow
def test_trainings_that_end_before_their_time(dhctl: Dhctl) -> None:
    """What would fail again is not tried again; a killed training's workers are free long before Ray forgets it."""
    log = driver_log(dhctl, "end")
    assert "training ends: the loss is not a finite number in epoch 1, step 1; lower learning_rate" in log
    assert re.search(r"^ill ended with 1 after", log, re.MULTILINE)
    assert re.findall(r"\[FailurePolicy\] (\w+)", log) == ["RAISE"], "it was tried again"
    (took,) = re.findall(r"^killed went on after (\S+) s$", log, re.MULTILINE)
    assert float(took) < 80, "Ray keeps a dead training's request for 180 s"
    assert [epoch["epoch"] for epoch in epochs(outputs(dhctl) / "killed")] == list(range(1, 7))
