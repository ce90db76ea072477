"""What is sent to the cluster as a job: a folder of code, the command line, and the environment it finds."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhctl import ray_jobs
from dhctl.infra.crate.digests import hashes_of, tree_digest
from dhctl.infra.errors import RefusedError
from dhctl.infra.home import storage_errors
from dhctl.infra.record import RunRecord
from dhctl.ray_jobs.catalog import JOBS

LAUNCHER = "_dhctl_launch.py"
_NEVER_SENT = (".git", "__pycache__", ".venv", "*.pyc", ".mypy_cache", ".pytest_cache", ".ruff_cache")
LEFT_OUT = shutil.ignore_patterns(*_NEVER_SENT)
"""What of a folder is never sent, as `shutil.copytree` asks for it."""


@dataclass(frozen=True)
class JobBundle:
    """A job ready to be submitted."""

    folder: Path
    entrypoint: str
    runtime_env: Mapping[str, Any]
    sha256: str
    """Of the code in it, without the launcher, which is dhctl's."""


def stage(record: RunRecord, number: int, environment: Mapping[str, str], code: Path | None = None) -> JobBundle:
    """Copies the job's code into the record, where it also tells later what ran, with the launcher beside it.

    `environment` is what the target adds; `code` the bundle of an earlier job, which is sent as it was then. Raises
    RefusedError when the disk is full.
    """
    job, folder = record.spec.job, record.job_dir(number) / "bundle"
    ours = Path(next(iter(ray_jobs.__path__)))
    shutil.rmtree(folder, ignore_errors=True)  # a stage that was broken off
    with storage_errors(record.folder):
        if code:
            shutil.copytree(code, folder)
        elif job.name:
            shutil.copytree(ours, folder / "dhctl" / "ray_jobs", ignore=LEFT_OUT)
        else:
            assert job.folder  # the spec has both, or a name
            _copy_job(record, Path(job.folder), folder)
        shutil.copy2(ours / "launch.py", folder / LAUNCHER)
    command = f"python -m {JOBS[job.name].module}" if job.name else job.entrypoint
    assert command  # as the folder
    timeout_s = int(job.timeout.total_seconds())
    entrypoint = f"python -u {LAUNCHER} --timeout {timeout_s} --tell-environment -- {shlex.quote(command)}"
    own = {k: str(v) for k, v in job.runtime_env.get("env_vars", {}).items()}
    env_vars = {**own, **job_environment(record), **environment}
    runtime_env = {**job.runtime_env, "working_dir": str(folder), "env_vars": env_vars}
    return JobBundle(folder, entrypoint, runtime_env, code_digest(folder))


def code_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a job's code: of a bundle, and of what a bundle is made from."""
    return tree_digest(hashes_of(folder, frozenset({LAUNCHER})))


def _copy_job(record: RunRecord, source: Path, target: Path) -> None:
    """The user's folder less what is never sent, and less dhctl's own folder and the output where these lie in it."""
    places = {str(record.home.root), record.spec.output, record.output}

    def leave_out(folder: str, names: list[str]) -> set[str]:
        return LEFT_OUT(folder, names) | {name for name in names if str(Path(folder) / name) in places}

    try:
        shutil.copytree(source, target, ignore=leave_out, ignore_dangling_symlinks=True)
    except shutil.Error as error:
        path, _, reason = error.args[0][0]
        if f"[Errno {errno.ENOSPC}]" in str(reason):  # all that copytree keeps of the error is its text
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise RefusedError(
            f"job.folder cannot be copied: {path}: {reason}", "make it readable or take it out"
        ) from error


def job_environment(record: RunRecord) -> dict[str, str]:
    """What every job finds in its environment, whoever wrote it (docs/guide.md, "Your own job")."""
    spec = record.spec
    return {
        "DHCTL_RUN_ID": record.run_id,
        "DHCTL_DATA": spec.data or "",
        "DHCTL_OUTPUT": record.output,
        "DHCTL_CACHE_DIR": spec.cache.folder or "",
        "DHCTL_CACHE_SIZE": str(spec.cache.size),
        "DHCTL_SITE_CACHE_DIR": spec.cache.shared or "",
        "DHCTL_SITE_CACHE_SIZE": str(spec.cache.shared_size),
        "DHCTL_WORKERS": str(spec.job_workers),
        "DHCTL_WORKERS_MIN": str(spec.job_workers_min),
        "DHCTL_CLUSTER_WORKERS": str(spec.workers.max),
        "DHCTL_WORKER_CPUS": str(spec.workers.cpus),
        "DHCTL_WORKER_GPUS": str(spec.workers.gpus),
        "DHCTL_JOB_PARAMS": json.dumps(spec.job.params),
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else Train shows each line of a worker twice
        "RAY_SCHEDULER_EVENTS": "0",
        "RAY_DEDUP_LOGS_ALLOW_REGEX": "@dhctl",  # messages of several workers look alike and must all arrive
        "RAY_COLOR_PREFIX": "0",
        "PYTHONUNBUFFERED": "1",
    }
