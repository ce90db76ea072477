"""A job's log for a reader who did not start it: from Ray while it lives, else from the record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from dhctl.infra.errors import ClusterError, NotUpError
from dhctl.infra.job_client import jobs_client, ray_errors
from dhctl.infra.job_stream import LogStream
from dhctl.infra.ledger import last
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.target import Target
from dhctl.ray_jobs.report import Environment, parse


def lines(record: RunRecord, target: Target, follow: bool) -> Iterator[str]:
    """The newest job's lines, without the launcher's long one. Raises NotUpError when the run had no job."""
    return (line for line in _all_lines(record, target, follow) if not isinstance(parse(line), Environment))


def _all_lines(record: RunRecord, target: Target, follow: bool) -> Iterator[str]:
    submitted = last(record.ledger.entries(), "job", "intent")
    if submitted is None:
        raise NotUpError(f"{record.run_id} had no job yet", f"start it with `dhctl train {record.run_id}`")
    if record.state() is RunState.TRAINING:
        with suppress(ClusterError, NotUpError):  # Ray is gone: the record has what was saved before
            yield from _living(record, target, submitted.detail["submission"], follow)
            return
    log = record.job_dir(int(submitted.detail["number"])) / "driver.log"
    if log.exists():
        yield from log.read_text(encoding="utf-8", errors="replace").splitlines()


def _living(record: RunRecord, target: Target, submission_id: str, follow: bool) -> Iterator[str]:
    with target.connect(record) as connection:
        client = jobs_client(connection)
        if not follow:
            with ray_errors():
                text: str = client.get_job_logs(submission_id)
            yield from text.splitlines()
            return
        yield from (line for line in LogStream(client, submission_id).lines() if line is not None)
