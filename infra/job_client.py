"""Ray's client for the Jobs API, and stopping a job through it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dhctl.infra.errors import ClusterError
from dhctl.infra.processes import wait_until
from dhctl.infra.ray_api import Connection

STOP_WAIT_S = 15.0


@contextmanager
def ray_errors() -> Iterator[None]:
    """What Ray's client raises when Ray does not answer, or answers that it cannot, becomes a ClusterError."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # an HTTP status that is an error; no connection
        told = " ".join(str(error).split())[:200]
        raise ClusterError(f"Ray's Jobs API does not answer ({told or type(error).__name__})") from error


def jobs_client(connection: Connection) -> Any:
    """Ray's client for the Jobs API. Raises ClusterError when Ray does not answer."""
    from ray.job_submission import JobSubmissionClient  # a second of imports, for the few verbs that need it

    for chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)  # uploads and closings concern nobody
    os.environ.pop("RAY_ADDRESS", None)  # the address of the user's other Ray: it would win over the one given here
    with ray_errors():
        return JobSubmissionClient(connection.dashboard_url, headers=connection.headers)


def stop_job(client: Any, submission_id: str) -> bool:
    """Asks Ray to stop a job (SIGTERM, after 3 s SIGKILL) and waits until it says so; whether it did in time.

    Raises ClusterError when Ray does not answer.
    """
    with ray_errors():
        if client.get_job_status(submission_id).is_terminal():
            return True
        client.stop_job(submission_id)
        return wait_until(lambda: client.get_job_status(submission_id).is_terminal(), STOP_WAIT_S, every_s=0.2)
