"""The cluster commands of the docs, run as one session in the order in which the guide gives them."""

from __future__ import annotations

import json
import subprocess

import pytest

from e2e.driver import Dhctl
from unit.test_docs import REPO, SESSION, follows_cluster


@pytest.mark.thorough
def test_the_session_of_the_guide(dhctl: Dhctl) -> None:
    (dhctl.folder / "examples").symlink_to(REPO / "examples")
    shown = {}
    for command in follows_cluster(SESSION):
        done = subprocess.run(
            ["bash", "-c", command],
            env=dhctl.env,
            cwd=dhctl.folder,
            text=True,
            capture_output=True,
            timeout=480,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        shown[command] = done.stdout

    assert "clean: nothing is left" in shown["dhctl run examples/own-job.yaml"]
    assert "radius alone baseline 0.938" in shown["dhctl run examples/own-job.yaml"]
    assert '"name": "validation_accuracy"' in shown["dhctl run examples/own-training.yaml"]
    assert json.loads(shown["tail -n 1 run.jsonl"])["result"]["metric"]["value"] > 0.95
    assert "5 of them done by an earlier job" in shown["dhctl logs -f own-job"], "the second `train` goes on"
    assert json.loads(shown["dhctl status own-job --json"])["state"] == "up"
    assert "clean: nothing is left" in shown["dhctl down own-job"]
    assert "5 of them done by an earlier job" in shown["dhctl run examples/own-job.yaml --resume own-job"]
    assert [record.state() for record in dhctl.records()] == ["clean"] * 5
