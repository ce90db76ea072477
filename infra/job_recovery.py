"""Jobs whose client died: stopped, or noted as ended, and their log, metrics and result kept all the same."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dhctl.infra.errors import ClusterError, NotUpError
from dhctl.infra.events import Noted, Report
from dhctl.infra.job_client import jobs_client, ray_errors, stop_job
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome, save_outcome
from dhctl.infra.ledger import last
from dhctl.infra.record import RunRecord
from dhctl.infra.target import Target


def stop_running(record: RunRecord, target: Target, report: Report) -> None:
    """Stops the job that the ledger says is still running, where its Ray still answers."""
    entries = record.ledger.entries()
    submitted = last(entries, "job")
    if submitted is None or submitted.phase != "intent":
        return
    try:
        with target.connect(record) as connection:
            report(Noted("stopping the job"))
            stop_job(jobs_client(connection), submitted.detail["submission"])
    except (NotUpError, ClusterError, OSError) as error:
        record.ledger.note("job.stop", "note", unreachable=f"{type(error).__name__}"[:200])


def close_unwatched(record: RunRecord, target: Target, report: Report) -> None:
    """Notes the end of a job whose client died before. Raises NotUpError when the job still runs."""
    submitted = last(record.ledger.entries(), "job", "intent")
    assert submitted is not None  # the run is training
    number, submission = int(submitted.detail["number"]), submitted.detail["submission"]
    with target.connect(record) as connection:
        client = jobs_client(connection)
        with ray_errors():
            status = client.get_job_status(submission)
            if not status.is_terminal():
                next_step = f"`dhctl train --attach {record.run_id}` takes it up"
                raise NotUpError(f"{record.run_id} is training already", next_step)
            text = client.get_job_logs(submission)
    log = record.job_dir(number) / "unwatched.log"
    log.write_text(text)
    rebuild_journal(record, log, (status.value, submitted.at), report)
    record.ledger.done("job", number=number, status=status.value, exit_code=None)


def recover_journal(record: RunRecord, log: Path, report: Report) -> None:
    """Rebuilds what a dead client did not write, from the driver's log that was copied before the cluster went."""
    number = record.last_job()
    submitted = last(record.ledger.entries(), "job")
    saved = record.job_dir(number) / "result.json"
    if not number or submitted is None or submitted.phase == "done" or saved.exists() or not log.exists():
        return
    started = submitted.at if submitted.phase == "intent" else record.opened().at
    rebuild_journal(record, log, ("STOPPED", started), report)
    report(Noted(f"log and metrics of the job saved in {record.job_dir(number)}"))


def rebuild_journal(record: RunRecord, log: Path, end: tuple[str, datetime], report: Report) -> None:
    """Writes the newest job's log, metrics and result from its driver's log. `end`: its status, and when it began."""
    number, (status, started) = record.last_job(), end
    with JobJournal(record.job_dir(number), lambda event: None) as journal:
        lines = log.read_bytes().decode("utf-8", errors="replace").removesuffix("\n").split("\n")
        for line in lines[journal.taken :]:
            journal.take(line.rstrip("\r"))
    now = datetime.now(UTC)
    seconds, since_opened = ((now - begun).total_seconds() for begun in (started, record.opened().at))
    outcome = JobOutcome(
        number, status, None, journal.last_line, round(seconds, 1), round(since_opened, 1), journal.result
    )
    save_outcome(record, outcome, report)
