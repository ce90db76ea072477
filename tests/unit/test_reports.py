"""What is told of runs and of this machine: usual durations, a run's status, what is missing."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dhctl.infra import doctor
from dhctl.infra import status as status_of_runs
from dhctl.infra.engine_install import Candidate
from dhctl.infra.errors import ClusterError
from dhctl.infra.home import Home
from dhctl.infra.ledger import Entry, Phase
from dhctl.infra.record import RunRecord
from dhctl.infra.status import local_time, look, summary
from dhctl.infra.usual import usual_durations
from dhctl.ray_jobs.catalog import JOBS
from unit.fakes import FakeTarget, make_record, make_spec

SPEC = make_spec()
START = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def lived(home: Home, name: str, *story: tuple[str, Phase, float], target: str = "local") -> RunRecord:
    """A run whose ledger tells `story`: act, phase, seconds after its start."""
    record = make_record(home, name=name)
    opened = record.opened()
    lines = [Entry(START, "run", "intent", {**opened.detail, "target": target})]
    lines += [Entry(START + timedelta(seconds=at), act, phase) for act, phase, at in story]
    record.ledger.path.write_text("".join(line.to_line() for line in lines))
    return record


def usual(home: Home) -> dict[str, tuple[float | None, str]]:
    return {u.phase: (u.seconds, u.source) for u in usual_durations(home, SPEC)}


def test_without_runs_the_reference_is_told(home: Home) -> None:
    found = usual(home)
    assert found["up"][0]
    assert "reference" in found["up"][1]
    assert found["job"] == (None, "no earlier run of this name here")
    assert {u.phase: u.text for u in usual_durations(home, SPEC)}["job"] == "not known yet"
    assert not home.root.exists()


def test_durations_are_medians_of_what_ended_well(home: Home) -> None:
    for seconds in (4, 6, 90):
        lived(home, "trial", ("up", "intent", 1), ("up", "done", 1 + seconds))
    lived(home, "trial", ("up", "intent", 0), ("up", "failed", 500))
    lived(home, "trial", ("up", "intent", 0), ("up", "done", 700), target="elsewhere")
    assert usual(home)["up"] == (6.0, "3 earlier runs here")


def test_a_jobs_time_is_that_of_runs_of_its_name(home: Home) -> None:
    lived(home, "trial", ("job", "intent", 10), ("job", "done", 30))
    lived(home, "other", ("job", "intent", 10), ("job", "done", 900))
    assert usual(home)["job"] == (20.0, "1 earlier runs here")


def test_a_damaged_record_is_passed_over(home: Home) -> None:
    lived(home, "trial").ledger.path.write_text("")
    assert usual(home)["job"][0] is None


def test_a_runs_summary_is_its_ledgers_word(home: Home) -> None:
    record = lived(home, "trial", ("up", "intent", 1), ("up", "done", 2))
    told = summary(record)
    assert (told["run"], told["name"], told["target"], told["state"]) == (record.run_id, "trial", "local", "up")
    assert datetime.fromisoformat(told["started"]) == START
    assert datetime.fromisoformat(told["lease_ends"]) == record.expires_at
    assert datetime.strptime(local_time(told["started"]), "%Y-%m-%d %H:%M:%S").astimezone() == START
    assert json.loads(json.dumps(told)) == told


def test_a_run_whose_ray_does_not_answer_still_has_a_status(record: RunRecord) -> None:
    status = look(record, FakeTarget())
    rows = dict(status.rows())
    assert rows["state"] == "starting"
    assert rows["workers"] == "Ray does not answer"
    assert " (in 3h59m" in rows["lease ends"]
    assert "dashboard" not in rows
    assert json.loads(json.dumps(status.to_dict()))["receipt"] is None


def test_what_went_wrong_is_told_while_the_run_is_up(record: RunRecord) -> None:
    target = FakeTarget()
    target.told = ["no node takes a worker: Insufficient cpu", "worker w-1 ended: OOMKilled"]
    assert look(record, target).troubles == [], "it only starts"
    record.ledger.note("up", "done")
    status = look(record, target)
    assert [told for key, told in status.rows() if key == "trouble"] == target.told
    assert json.loads(json.dumps(status.to_dict()))["troubles"] == target.told


def test_a_place_that_does_not_answer_ends_no_status(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    class Silent(FakeTarget):
        def troubles(self, record: RunRecord) -> list[str]:
            asked.wait(30)
            return []

    class Locked(FakeTarget):
        def troubles(self, record: RunRecord) -> list[str]:
            raise ClusterError("cannot log in", "log in again")

    record.ledger.note("up", "done")
    monkeypatch.setattr(status_of_runs, "TROUBLES_S", 0.1)
    assert look(record, Silent()).troubles == ["what went wrong is not known: nobody answered within 0.1 s"]
    asked.set()
    assert look(record, Locked()).troubles[0].startswith("what went wrong cannot be told: cannot log in")


def test_the_newest_jobs_result_is_part_of_the_status(record: RunRecord) -> None:
    record.ledger.intent("job", number=1)
    record.write_json(record.job_dir(1) / "result.json", {"status": "SUCCEEDED", "seconds": 4})
    assert look(record, FakeTarget()).to_dict()["job"] == {"status": "SUCCEEDED", "seconds": 4}


def candidate(folder: Path, usable: bool) -> Candidate:
    return Candidate(folder / "pulumi", "PATH", "3.259.0", usable, "" if usable else "another version")


def test_doctor_says_which_engine_is_used_and_why_not_the_others(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [candidate(tmp_path / "a", False), candidate(tmp_path / "b", True), candidate(tmp_path / "c", True)]
    monkeypatch.setattr(doctor, "candidates", lambda root: both)
    engine = [f for f in doctor.examine(home) if f.area == "engine"]
    assert [(f.ok, f.told.rpartition("; ")[2]) for f in engine] == [
        (False, "another version"),
        (True, "used"),
        (True, "not needed"),
    ]
    assert not any(f.needed for f in engine)
    assert not home.root.exists()


def test_doctor_says_that_an_engine_is_missing_and_how_to_get_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "candidates", lambda root: [])
    engine = [f for f in doctor.examine(home) if f.area == "engine"]
    assert [f.what for f in engine if f.needed and not f.ok] == ["Pulumi CLI"]
    assert any(f.what.startswith("way to install: ") for f in engine)


def test_doctor_says_what_a_job_lacks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "monai" else real(name))
    jobs = [f for f in doctor.examine(home) if f.area == "jobs"]
    assert [(job.ok, job.needed, job.told) for job in jobs] == [
        (False, False, f"missing monai; pip install 'dhctl[{name}]'") for name in JOBS
    ]


def test_doctor_says_that_ray_is_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise doctor.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "ray", None)
    (ray,) = [f for f in doctor.examine(home) if f.what == "Ray"]
    assert not ray.ok
