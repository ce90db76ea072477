"""The job of a run: submitted through Ray's Jobs API, or taken up while it runs, and seen through to its end. When its
head is lost, another one is brought up and the job sent again, which goes on from its last checkpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import filelock

from dhctl.infra import bundle
from dhctl.infra.crate.digests import digest_data
from dhctl.infra.errors import ClusterError, DhctlError, HeadLostError, JobFailedError, NotUpError, RunBusyError
from dhctl.infra.events import Noted, PhaseDone, PhaseStarted
from dhctl.infra.head_recovery import AFTER, bring_back, look_for_head, restarts
from dhctl.infra.home import storage_errors
from dhctl.infra.job_client import jobs_client
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome, outcome_at_loss, read_outcome, save_outcome
from dhctl.infra.job_recovery import close_unwatched
from dhctl.infra.job_watch import JobWatch, Submitted, require_living
from dhctl.infra.ledger import last
from dhctl.infra.ray_api import Connection, head_id
from dhctl.infra.record import RunRecord, RunState
from dhctl.infra.up import Tools

HEAD_TRIES = 3


def train(record: RunRecord, tools: Tools) -> JobOutcome:
    """Submits the run's job and sees it through.

    Raises NotUpError when the run is not up, RunBusyError while another dhctl follows its job, InterruptedRunError
    after a request to stop (the job is stopped first), HeadLostError when its head is lost and none comes back.
    """
    with _following(record), storage_errors(record.folder):
        state = record.state()
        if state is RunState.TRAINING:
            close_unwatched(record, tools.target, tools.report)
        elif state is not RunState.UP:
            taken_up = f"`dhctl train --attach {record.run_id}` goes on with that"
            next_step = taken_up if state is RunState.RECOVERING else "start a run with `dhctl up`"
            raise NotUpError(f"{record.run_id} is not up but {state.value}", next_step)
        return _see_through(record, tools, partial(_run_new, record, tools, None), used=0)


def attach(record: RunRecord, tools: Tools) -> JobOutcome:
    """Takes up the run's job where the client that followed it left off; of a job that has ended, how it did.

    Raises NotUpError when the run had no job, or nothing tells how it ended; all else as `train` does.
    """
    submitted = last(record.ledger.entries(), "job", "intent")
    if submitted is None:
        raise NotUpError(f"{record.run_id} had no job yet", f"start it with `dhctl train {record.run_id}`")
    job = Submitted.of(submitted)
    if job.number > 1:
        tools.report(Noted(f"job {job.number} is the newest one of {record.run_id}; those before it have ended"))
    with _following(record), storage_errors(record.folder):
        used = restarts(record.ledger.entries())
        match record.state():
            case RunState.TRAINING:
                return _see_through(record, tools, lambda: _follow(record, tools, job), used, job.number)
            case RunState.RECOVERING:
                return _see_through(record, tools, partial(_lost_before, record), used, job.number)
            case state:
                tools.report(Noted(f"job {job.number} has ended already; {record.run_id} is {state.value}"))
                return read_outcome(record, job.number)


@contextmanager
def _following(record: RunRecord) -> Iterator[None]:
    """One client follows a run's job: two would write the same journal. The lock goes with the process."""
    try:
        with filelock.FileLock(record.folder / "job.lock", timeout=0):
            yield
    except filelock.Timeout as error:
        next_step = f"`dhctl logs -f {record.run_id}` shows what it says"
        raise RunBusyError(f"another dhctl follows the job of {record.run_id}", next_step) from error


def _see_through(
    record: RunRecord, tools: Tools, step: Callable[[], JobOutcome], used: int, after: int | None = None
) -> JobOutcome:
    """`step` runs or follows a job; after each head that is lost, the job is sent again to the next one.

    `used`: how many heads were brought back for it already; `after`: the job that the next one goes on from.
    """
    allowed = record.spec.job.head_restarts
    while True:
        before = record.last_job()
        try:
            return step()
        except HeadLostError as lost:
            if used >= allowed:
                next_step = "run it again with --resume, which goes on from the last checkpoint"
                raise HeadLostError(f"{lost.what}; job.head_restarts is {allowed}", next_step) from lost
            bring_back(record, tools, lost)
        used += 1
        if record.last_job() > before:  # else the head was lost before it took one
            after = record.last_job()
        step = partial(_run_new, record, tools, after)


def _lost_before(record: RunRecord) -> JobOutcome:
    """A client was killed while it brought a head back."""
    begun = last(record.ledger.entries(), "head.recover", "intent")
    raise HeadLostError(str(begun.detail["lost"]) if begun else "the head is lost")


def _run_new(record: RunRecord, tools: Tools, after: int | None) -> JobOutcome:
    """Submits the job and follows it. `after`: the job that it goes on from, whose code is sent again."""
    number = record.last_job() + 1
    try:
        with tools.target.connect(record) as connection:
            environment = tools.target.job_environment(record)
            code = record.job_dir(after) / "bundle" if after else None
            sent = bundle.stage(record, number, environment, code)
            if not after:
                record.ledger.note("data.digest", **digest_data(record.spec.data).to_dict())
            tools.report(PhaseStarted("job", record.spec.job.name or record.spec.job.entrypoint or ""))
            job = _submit(record, connection, sent, number, after)
            return _follow(record, tools, job, connection)
    except ClusterError as error:
        why = look_for_head(record, tools.target)
        if not why:
            raise
        raise HeadLostError(f"the head is lost: {why}") from error


def _submit(
    record: RunRecord, connection: Connection, sent: bundle.JobBundle, number: int, after: int | None
) -> Submitted:
    submission = f"{record.run_id}-{number}-{secrets.token_hex(3)}"  # Ray refuses an id it has seen
    told = {
        "number": number,
        "submission": submission,
        "entrypoint": sent.entrypoint,
        "sha256": sent.sha256,
        "head": _name_of_head(connection),
    }
    record.ledger.intent("job", **told, **({AFTER: after} if after else {}))
    try:
        jobs_client(connection).submit_job(
            entrypoint=sent.entrypoint,
            submission_id=submission,
            runtime_env=dict(sent.runtime_env),
            metadata={"dhctl_run": record.run_id},
        )
    except BaseException as error:
        record.ledger.note("job", "failed", number=number, reason=f"{type(error).__name__}: {error}"[:2000])
        if isinstance(error, OSError):
            raise ClusterError(f"Ray's Jobs API does not answer ({error})") from error
        if isinstance(error, RuntimeError | ValueError):  # what Ray raises bare here, with the server's traceback
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise JobFailedError(f"Ray refused the job: {reason}", "look at job.runtime_env and job.folder") from error
        raise
    submitted = last(record.ledger.entries(), "job", "intent")
    assert submitted is not None  # written a moment ago
    return Submitted.of(submitted)


def _name_of_head(connection: Connection) -> str:
    """Ray's own; "" where a busy Ray does not tell it, and then a head that was started anew is known by less."""
    for _ in range(HEAD_TRIES):
        with suppress(ClusterError):
            return head_id(connection)
    return ""


def _follow(record: RunRecord, tools: Tools, job: Submitted, connection: Connection | None = None) -> JobOutcome:
    """To the job's end, which the record has then. A job that is only out of sight is one that runs, for the ledger."""
    with JobJournal(record.job_dir(job.number), tools.report) as journal:
        try:
            outcome = JobWatch(record, tools, job, journal).to_end(connection)
        except ClusterError as error:
            require_living(record)  # what breaks because the run ends is told as that
            raise ClusterError(error.what, f"`dhctl train --attach {record.run_id}` takes the job up again") from error
        except DhctlError as error:
            record.ledger.note("job", "failed", number=job.number, reason=f"{type(error).__name__}: {error}"[:2000])
            if isinstance(error, HeadLostError):
                save_outcome(record, outcome_at_loss(record, job.number, job.at, journal), tools.report)
            raise
    record.ledger.done("job", number=job.number, status=outcome.status, exit_code=outcome.exit_code)
    save_outcome(record, outcome, tools.report)
    tools.report(PhaseDone("job", outcome.seconds, outcome.status))
    return outcome
