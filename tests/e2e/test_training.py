"""The training core on real workers: elastic trainings side by side, a lost worker, an end that is not tried again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from e2e.driver import Dhctl


def outputs(dhctl: Dhctl) -> Path:
    return Path(dhctl.record().output)


def epochs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_elastic_trainings_share_a_cluster(dhctl: Dhctl) -> None:
    """The second comes while the first has both workers, and neither waits for the other's end."""
    ran = dhctl("run", dhctl.spec("sides", job={"workers": {"min": 1, "max": 2}}), timeout_s=170)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    log = (dhctl.record().job_dir(1) / "driver.log").read_text()
    ended = dict(re.findall(r"^(first|second) trained on .* ended at (\S+)$", log, re.MULTILINE))
    assert float(ended["second"]) < float(ended["first"]), log
    assert [epoch["epoch"] for epoch in epochs(outputs(dhctl) / "first")] == list(range(1, 31))
    assert [epoch["epoch"] for epoch in epochs(outputs(dhctl) / "second")] == list(range(1, 7))
