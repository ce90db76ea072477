"""The jobs of a run by its ledger (dhctl.infra.job_entries)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dhctl.infra.job_entries import job_entries
from dhctl.infra.ledger import Entry, Phase

BEGIN = datetime(2026, 11, 28, tzinfo=UTC)


def entry(second: int, phase: Phase, **detail: Any) -> Entry:
    return Entry(BEGIN + timedelta(seconds=second), "job", phase, detail)


def test_each_job_has_its_begin_and_the_last_word_on_its_end() -> None:
    lost = entry(5, "failed", number=1, reason="the head was lost")
    found = entry(9, "done", number=1, status="STOPPED")
    entries = [entry(0, "intent", number=1), lost, entry(7, "intent", number=2), found, Entry(BEGIN, "down", "intent")]
    first, second = job_entries(entries)
    assert (first.number, first.begun, first.ended, first.status) == (1, entries[0], found, "STOPPED")
    assert (second.number, second.ended, second.status) == (2, None, "")


def test_a_failure_without_rays_word_is_failed_and_what_has_no_number_is_passed_over() -> None:
    entries = [entry(0, "intent", number=1), entry(1, "failed", number=1), entry(2, "intent"), entry(3, "done")]
    (job,) = job_entries(entries)
    assert job.status == "FAILED"
