"""The job that `dhctl new job` makes passes the test that comes with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dhctl.infra.job_template.write import new_job


def test_the_test_of_a_new_job_passes(tmp_path: Path) -> None:
    place = new_job("my-job", tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
