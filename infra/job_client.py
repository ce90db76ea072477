"""Ray's client for the Jobs API, and stopping a job through it."""

from __future__ import annotations

import logging
import os
from typing import Any

from dhctl.infra.errors import ClusterError
from dhctl.infra.processes import wait_until
from dhctl.infra.ray_api import Connection

STOP_WAIT_S = 15.0


def jobs_client(connection: Connection) -> Any:
    """Ray's client for the Jobs API. Raises ClusterError when Ray does not answer."""
    from ray.job_submission import JobSubmissionClient  # a second of imports, for the few verbs that need it

    for chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)  # uploads and closings concern nobody
    os.environ.pop("RAY_ADDRESS", None)  # the address of the user's other Ray: it would win over the one given here
    try:
        return JobSubmissionClient(connection.dashboard_url, headers=connection.headers)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray's Jobs API does not answer ({error})") from error


def stop_job(client: Any, submission_id: str) -> bool:
    """Asks Ray to stop a job (SIGTERM, after 3 s SIGKILL) and waits until it says so; whether it did in time."""
    if client.get_job_status(submission_id).is_terminal():
        return True
    client.stop_job(submission_id)
    return wait_until(lambda: client.get_job_status(submission_id).is_terminal(), STOP_WAIT_S, every_s=0.2)
