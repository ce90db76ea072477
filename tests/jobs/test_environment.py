"""What a job reads from its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhctl.ray_jobs.environment import JobEnvironment, JobEnvironmentError

GOOD = {"DHCTL_DATA": "phantoms", "DHCTL_OUTPUT": "s3://bucket/run"}


def test_everything_is_read() -> None:
    env = JobEnvironment.from_env(
        GOOD
        | {"DHCTL_RUN_ID": "dh-1", "DHCTL_WORKERS": "4", "DHCTL_WORKER_CPUS": "8", "DHCTL_WORKER_GPUS": "1"}
        | {"DHCTL_JOB_PARAMS": '{"seed": 3}'}
    )
    assert env == JobEnvironment("phantoms", "s3://bucket/run", "dh-1", 4, 8, 1, {"seed": 3})
    assert not env.is_elastic


@pytest.mark.parametrize(("least", "elastic"), [("1", True), ("4", False), ("", False)])
def test_a_job_that_needs_fewer_workers_than_it_takes_is_elastic(least: str, elastic: bool) -> None:
    env = JobEnvironment.from_env(GOOD | {"DHCTL_WORKERS": "4", "DHCTL_WORKERS_MIN": least})
    assert env.is_elastic is elastic


def test_folders_become_absolute() -> None:
    assert JobEnvironment.from_env(GOOD | {"DHCTL_DATA": "slides"}).data == str(Path("slides").absolute())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"DHCTL_DATA": ""}, "DHCTL_DATA is not set; set it to a folder"),
        ({"DHCTL_OUTPUT": ""}, "DHCTL_OUTPUT is not set"),
        ({"DHCTL_DATA": "gs://bucket"}, "a kind of URL this job cannot open"),
        ({"DHCTL_WORKERS": "0"}, "DHCTL_WORKERS is '0'; set it to a whole number of at least 1"),
        ({"DHCTL_WORKERS_MIN": "-1"}, "DHCTL_WORKERS_MIN is '-1'"),
        ({"DHCTL_WORKER_GPUS": "some"}, "at least 0"),
        ({"DHCTL_JOB_PARAMS": "{"}, "DHCTL_JOB_PARAMS is not JSON"),
        ({"DHCTL_JOB_PARAMS": "[1]"}, "DHCTL_JOB_PARAMS is a list"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(JobEnvironmentError, match=sentence.replace("(", r"\(")):
        JobEnvironment.from_env(GOOD | change)
