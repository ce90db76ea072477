"""What the client knows of the jobs."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

from dhctl.ray_jobs.catalog import JOBS


def test_every_job_can_be_started_and_its_profiles_exist() -> None:
    for name, job in JOBS.items():
        assert job.name == name
        assert importlib.util.find_spec(f"{job.module}.__main__")
        assert [need for need in job.needs if not importlib.util.find_spec(need)] == []
        assert job.profiles == tuple(importlib.import_module(f"{job.module}.settings").PROFILES)


def test_the_client_side_is_standard_library_only() -> None:
    code = (
        "import sys, dhctl.ray_jobs.catalog, dhctl.ray_jobs.report, dhctl.ray_jobs.environment;"
        "print([m for m in ('torch', 'ray', 'numpy', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
