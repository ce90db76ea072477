"""A job that was made a moment ago runs on this machine as it is."""

from __future__ import annotations

import json

from e2e.driver import Dhctl, assert_gone


def test_a_new_job_runs(dhctl: Dhctl) -> None:
    made = dhctl("new", "job", "my-job")
    assert made.returncode == 0, made.stderr
    ended = dhctl("run", "my-job/my-job.yaml", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    metric = events[-1]["result"]["metric"]
    assert metric["name"] == "validation_accuracy"
    assert metric["value"] > metric["baseline"]["value"] + 0.1
    assert any(e["event"] == "JobProgressed" and e["metrics"].get("validation_accuracy") for e in events)
    assert_gone(dhctl.record())
