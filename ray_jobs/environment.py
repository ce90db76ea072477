"""What dhctl tells a job through its environment. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

PHANTOMS = "phantoms"
"""The value of DHCTL_DATA with which a job generates sample data."""


N = TypeVar("N", int, None)


class RefusedInputError(Exception):
    """The job cannot run with this input; the text is a sentence with a next step. Jobs exit with 1 and print it."""


class JobStoppedError(Exception):
    """The job began but could not go on; the text is a sentence. Jobs exit with 1 and print it."""


class JobEnvironmentError(RefusedInputError):
    """A DHCTL_ variable is missing or unreadable."""


@dataclass(frozen=True)
class JobEnvironment:
    """Where the data is, where results go, and how many workers of which size to train on."""

    data: str
    """DHCTL_DATA: a folder, an s3:// URL, or `phantoms`."""
    output: str
    """DHCTL_OUTPUT: a folder or an s3:// URL; a folder must be visible to all nodes."""
    run_id: str = "by-hand"
    """DHCTL_RUN_ID: whose run this is; kept in the result."""
    workers: int = 1
    """DHCTL_WORKERS: how many train workers, at most."""
    worker_cpus: int = 1
    """DHCTL_WORKER_CPUS: CPU cores of each."""
    worker_gpus: int = 0
    """DHCTL_WORKER_GPUS: GPUs of each."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """DHCTL_JOB_PARAMS: job.params of the spec, a JSON object."""
    least_workers: int | None = None
    """DHCTL_WORKERS_MIN: how many are enough to train on; None is as many as `workers`."""
    cluster_workers: int | None = None
    """DHCTL_CLUSTER_WORKERS: how many workers all jobs of the cluster have together; None is as many as `workers`."""

    @property
    def is_elastic(self) -> bool:
        """Whether training goes on with fewer workers than `workers`."""
        return self.least_workers is not None and self.least_workers < self.workers

    @classmethod
    def from_env(cls, env: Mapping[str, str], needs_data: bool = True) -> Self:
        """Read the DHCTL_ variables. Raises JobEnvironmentError with the variable's name and what to set.

        Without `needs_data`, `data` may be the empty text.
        """
        return cls(
            data=_place(env, "DHCTL_DATA", f"a folder, an s3:// URL or {PHANTOMS}", needs_data),
            output=_place(env, "DHCTL_OUTPUT", "a folder or an s3:// URL"),
            run_id=env.get("DHCTL_RUN_ID") or cls.run_id,
            workers=_count(env, "DHCTL_WORKERS", cls.workers, least=1),
            worker_cpus=_count(env, "DHCTL_WORKER_CPUS", cls.worker_cpus, least=1),
            worker_gpus=_count(env, "DHCTL_WORKER_GPUS", cls.worker_gpus, least=0),
            params=_params(env.get("DHCTL_JOB_PARAMS") or "{}"),
            least_workers=_count(env, "DHCTL_WORKERS_MIN", None, least=1),
            cluster_workers=_count(env, "DHCTL_CLUSTER_WORKERS", None, least=1),
        )


def _place(env: Mapping[str, str], name: str, what: str, needed: bool = True) -> str:
    value = env.get(name, "").strip()
    if not value and not needed:
        return ""
    if not value:
        raise JobEnvironmentError(f"{name} is not set; set it to {what} (dhctl sets it from the spec)")
    if value == PHANTOMS or value.startswith("s3://"):
        return value
    if "://" in value:
        raise JobEnvironmentError(f"{name} is '{value}', a kind of URL this job cannot open; use {what}")
    return str(Path(value).expanduser().absolute())


def _count(env: Mapping[str, str], name: str, default: N, least: int) -> int | N:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise JobEnvironmentError(f"{name} is '{text}'; set it to a whole number of at least {least}")
    return value


def _params(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise JobEnvironmentError(
            f'DHCTL_JOB_PARAMS is not JSON ({error}); write an object such as {{"seed": 1}}'
        ) from error
    if not isinstance(value, dict):
        raise JobEnvironmentError(
            f'DHCTL_JOB_PARAMS is a {type(value).__name__}; write an object such as {{"seed": 1}}'
        )
    return value
