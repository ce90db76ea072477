"""Following a job that was submitted to its end, over as many connections as that takes, and seeing when its head is
lost: what Ray says is not enough for that, because a client may be cut off from a head that lives.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from dhctl.infra.errors import ClusterError, DhctlError, HeadLostError, JobFailedError, NotUpError
from dhctl.infra.events import Noted, Warned
from dhctl.infra.job_client import jobs_client, ray_errors, stop_job
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome
from dhctl.infra.job_stream import LogStream
from dhctl.infra.ledger import Entry
from dhctl.infra.node_watch import NodeWatch, noting
from dhctl.infra.processes import wait_until
from dhctl.infra.ray_api import Connection, head_id
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.up import Tools

END_WAIT_S = 20.0
UNSEEN_TIMEOUT_S = 60.0
"""The cluster ends a job at its timeout; the client waits this much longer before it ends the job itself."""

SILENT_S = 30.0
"""A Ray that does not answer for so long is looked after by another connection, and at the place where it lives."""

PATIENCE_S = 300.0
"""How long a head that is there, as its place says, may be silent before it counts as lost."""

LOSSES, UNSTEADY_S = 10, 600.0
"""So many connections may break within this time: through a way that carries none, nobody can follow a job."""

LOOK_EVERY_S = 1.0
CONFIRM_S = 2.0
"""A driver that was killed may be the first to go of a head that goes: the head is looked at again after this."""


@dataclass(frozen=True)
class Submitted:
    """A job that was sent to Ray. `head` is Ray's name of the head that took it; "" where that is not known."""

    number: int
    submission: str
    at: datetime
    head: str

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """As the ledger tells it."""
        told = entry.detail
        return cls(int(told["number"]), str(told["submission"]), entry.at, str(told.get("head", "")))


class JobWatch:
    """One job on its way to its outcome."""

    def __init__(self, record: RunRecord, tools: Tools, job: Submitted, journal: JobJournal) -> None:
        self._record, self._tools, self._job, self._journal = record, tools, job, journal
        since = (datetime.now(UTC) - job.at).total_seconds()
        self._began = time.monotonic() - since
        self._deadline = self._began + record.spec.job.timeout.total_seconds() + UNSEEN_TIMEOUT_S
        self._stopped = False

    def to_end(self, connection: Connection | None = None) -> JobOutcome:
        """How the job ended. `connection`: one that is open already.

        Raises HeadLostError when the job's head is gone or another one, ClusterError when nobody can tell,
        InterruptedRunError after a request to stop, JobFailedError when the run is ended meanwhile.
        """
        lost: list[float] = []
        while True:
            try:
                if connection:
                    return self._follow(connection)
                with self._tools.target.connect(self._record) as again:
                    return self._follow(again)
            except (ClusterError, NotUpError) as error:
                lost = [at for at in lost if at > time.monotonic() - UNSTEADY_S] + [time.monotonic()]
                if len(lost) > LOSSES:
                    raise
                self._tools.report(Warned(f"Ray is lost from sight: {error.what}; looking after the head"))
            connection = None
            self._find_head()
            self._tools.report(Noted("the head answers again, and the job goes on"))

    def _follow(self, connection: Connection) -> JobOutcome:
        self._require_same_head(connection)
        client, behind = jobs_client(connection), self._journal.taken
        with NodeWatch(connection, noting(self._record.ledger, self._tools.report)) as nodes:
            for line in LogStream(client, self._job.submission).lines():
                if line is not None and behind:
                    behind -= 1
                elif line is not None:
                    self._journal.take(line)
                if self._stopped_when_due(client):
                    break
                if nodes.silent_s > SILENT_S:
                    raise ClusterError(f"it did not answer for {nodes.silent_s:.0f} s")
        return self._outcome(client, connection)

    def _stopped_when_due(self, client: Any) -> bool:
        """Whether the job was stopped. Raises InterruptedRunError after a request to stop."""
        if self._tools.interrupts.reason is not None:
            self._stop(client, "a request to stop")
            self._tools.interrupts.check()
        elif datetime.now(UTC) >= self._record.expires_at:
            self._stop(client, "the end of the lease")
        elif time.monotonic() > self._deadline:
            self._stop(client, "its timeout")
        return self._stopped

    def _stop(self, client: Any, why: str) -> None:
        self._tools.report(Noted(f"stopping the job because of {why}"))
        self._stopped = True
        try:
            stop_job(client, self._job.submission)
        except ClusterError as error:
            self._tools.report(Warned(f"the job could not be stopped: {error.what}"))

    def _outcome(self, client: Any, connection: Connection) -> JobOutcome:
        """The log ends a little before Ray knows the status."""
        job = self._job
        with ray_errors():
            wait_until(lambda: client.get_job_status(job.submission).is_terminal(), END_WAIT_S, every_s=0.2)
            info = client.get_job_info(job.submission)
        status, code = str(info.status.value), info.driver_exit_code
        if status == "FAILED" and not self._stopped and (code is None or not 0 <= code < 128):
            time.sleep(CONFIRM_S)
            self._require_same_head(connection)
        return JobOutcome(
            number=job.number,
            status=status,
            exit_code=code,
            last_line=self._journal.last_line or (info.message or "").strip().partition("\n")[0],
            seconds=round(time.monotonic() - self._began, 1),
            time_to_model_s=round((datetime.now(UTC) - self._record.opened().at).total_seconds(), 1),
            result=self._journal.result,
        )

    def _require_same_head(self, connection: Connection) -> None:
        """Raises HeadLostError when Ray's head is another one than that which took the job, ClusterError."""
        if not self._job.head:
            return
        found = head_id(connection)
        if found and found != self._job.head:
            raise HeadLostError("Ray's head was started anew, and the job is gone with the old one", answers=True)

    def _find_head(self) -> None:
        """Returns when the job's head answers. Raises what `to_end` raises."""
        record, tools = self._record, self._tools
        until, unknown = time.monotonic() + PATIENCE_S, ""
        while True:
            self._require_living_run()
            if self._answers():
                return
            try:
                why, unknown = tools.target.lost_head(record), ""
            except DhctlError as error:  # the place cannot be asked either: the client may be cut off
                why, unknown = "", str(error)
            if why:
                raise HeadLostError(f"the head is lost: {why}")
            if time.monotonic() > until:
                if unknown:
                    raise ClusterError(f"neither Ray nor its place answered for {PATIENCE_S:.0f} s: {unknown}")
                raise HeadLostError(f"the head is there, but its Ray did not answer for {PATIENCE_S:.0f} s")
            time.sleep(LOOK_EVERY_S)

    def _answers(self) -> bool:
        try:
            with self._tools.target.connect(self._record) as connection:
                found = head_id(connection)
                self._require_same_head(connection)
        except (ClusterError, NotUpError):
            return False
        return bool(found)

    def _require_living_run(self) -> None:
        """Raises InterruptedRunError, JobFailedError."""
        self._tools.interrupts.check()
        require_living(self._record)
        if time.monotonic() > self._deadline:
            raise JobFailedError("the job's time was over while its head did not answer", "raise job.timeout")


def require_living(record: RunRecord) -> None:
    """Raises JobFailedError when the run's lease is over, or another dhctl takes it down."""
    if datetime.now(UTC) >= record.expires_at:
        raise JobFailedError("the lease ended before the job was done", "raise lease")
    if record.state() in (RunState.STOPPING, RunState.CLEAN, RunState.LEFTOVERS):
        raise JobFailedError(f"{record.run_id} was taken down by another dhctl")
