"""The job of a run: submitted through Ray's Jobs API, followed to its end, stopped when asked, and its result kept."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from datetime import UTC, datetime

from dhctl.infra import bundle
from dhctl.infra.errors import JobFailedError, NotUpError
from dhctl.infra.events import Noted, PhaseDone, PhaseStarted, Report
from dhctl.infra.home import storage_errors
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.job_client import jobs_client, stop_job
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome, save_outcome
from dhctl.infra.job_recovery import close_unwatched
from dhctl.infra.job_stream import LogStream
from dhctl.infra.node_watch import NodeWatch
from dhctl.infra.processes import wait_until
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.target import Target

END_WAIT_S = 20.0
UNSEEN_TIMEOUT_S = 60.0
"""The cluster ends a job at its timeout; the client waits this much longer before it ends the job itself."""


def train(record: RunRecord, target: Target, report: Report, interrupts: Interrupts) -> JobOutcome:
    """Submits the run's job and follows it to its end.

    Raises NotUpError when the run is not up, InterruptedRunError after a request to stop (the job is stopped first).
    """
    state = record.state()
    if state is RunState.TRAINING:
        close_unwatched(record, target, report)
    elif state is not RunState.UP:
        raise NotUpError(f"{record.run_id} is not up but {state.value}", "start a run with `dhctl up`")
    number = record.last_job() + 1
    with ExitStack() as stack:
        stack.enter_context(storage_errors(record.folder))
        connection = stack.enter_context(target.connect(record))
        sent = bundle.stage(record, number, target.job_environment(record))
        report(PhaseStarted("job", record.spec.job.name or record.spec.job.entrypoint or ""))
        stack.enter_context(NodeWatch(connection, report))
        journal = stack.enter_context(JobJournal(record.job_dir(number), report))
        outcome = _Submission(record, connection, report, interrupts, number).run(sent, journal)
    report(PhaseDone("job", outcome.seconds, outcome.status))
    return outcome


class _Submission:
    """One job on its way from submission to outcome."""

    def __init__(
        self, record: RunRecord, connection: Connection, report: Report, interrupts: Interrupts, number: int
    ) -> None:
        self._record, self._client, self._report = record, jobs_client(connection), report
        self._interrupts, self._number = interrupts, number
        self._id = f"{record.run_id}-{number}-{secrets.token_hex(3)}"  # Ray refuses an id it has seen
        self._started = time.monotonic()

    def run(self, sent: bundle.JobBundle, journal: JobJournal) -> JobOutcome:
        self._record.ledger.intent("job", number=self._number, submission=self._id, entrypoint=sent.entrypoint)
        try:
            self._submit(sent)
            self._follow(journal)
            outcome = self._outcome(journal)
        except BaseException as error:
            self._record.ledger.note("job", "failed", number=self._number, reason=f"{type(error).__name__}: {error}")
            if isinstance(error, Exception):
                self._require_living_run(error)
            raise
        self._record.ledger.done("job", number=self._number, status=outcome.status, exit_code=outcome.exit_code)
        save_outcome(self._record, outcome, self._report)
        return outcome

    def _require_living_run(self, error: Exception) -> None:
        """What breaks because the run ends is told as that."""
        if datetime.now(UTC) >= self._record.expires_at:
            raise JobFailedError("the lease ended before the job was done", "raise lease") from error
        if self._record.state() in (RunState.STOPPING, RunState.CLEAN, RunState.LEFTOVERS):
            raise JobFailedError(f"{self._record.run_id} was taken down by another dhctl") from error

    def _submit(self, sent: bundle.JobBundle) -> None:
        try:
            self._client.submit_job(
                entrypoint=sent.entrypoint,
                submission_id=self._id,
                runtime_env=dict(sent.runtime_env),
                metadata={"dhctl_run": self._record.run_id},
            )
        except Exception as error:  # Ray raises bare RuntimeError and ValueError here, with the server's traceback
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise JobFailedError(f"Ray refused the job: {reason}", "look at job.runtime_env and job.folder") from error

    def _follow(self, journal: JobJournal) -> None:
        deadline = self._started + self._record.spec.job.timeout.total_seconds() + UNSEEN_TIMEOUT_S
        for line in LogStream(self._client, self._id).lines():
            if line is not None:
                journal.take(line)
            if self._interrupts.reason is not None:
                self._stop("a request to stop")
                self._interrupts.check()
            if datetime.now(UTC) >= self._record.expires_at:
                self._stop("the end of the lease")
                return
            if time.monotonic() > deadline:
                self._stop("its timeout")
                return

    def _stop(self, why: str) -> None:
        self._report(Noted(f"stopping the job because of {why}"))
        stop_job(self._client, self._id)

    def _outcome(self, journal: JobJournal) -> JobOutcome:
        """The log ends a little before Ray knows the status."""
        wait_until(lambda: self._client.get_job_status(self._id).is_terminal(), END_WAIT_S, every_s=0.2)
        info = self._client.get_job_info(self._id)
        return JobOutcome(
            number=self._number,
            status=str(info.status.value),
            exit_code=info.driver_exit_code,
            last_line=journal.last_line or (info.message or "").strip().partition("\n")[0],
            seconds=round(time.monotonic() - self._started, 1),
            time_to_model_s=round((datetime.now(UTC) - self._record.opened().at).total_seconds(), 1),
            result=journal.result,
        )
