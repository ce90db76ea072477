"""How long things usually take: from this machine's own runs of the same target, else from reference runs of it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from dhctl.infra.home import Home
from dhctl.infra.ledger import Entry
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import TargetName
from dhctl.infra.usual import REFERENCE_S, Usual, usual_durations
from unit.fake_openstack import cloud_spec
from unit.fakes import make_record, make_spec


def took(record: RunRecord, act: str, seconds: float) -> None:
    """Writes an act of that length into a run's ledger."""
    record.ledger.intent(act, number=1)
    *before, begun = record.ledger.path.read_text().splitlines()
    at = datetime.fromisoformat(json.loads(begun)["at"]) + timedelta(seconds=seconds)
    record.ledger.path.write_text("\n".join([*before, begun]) + "\n" + Entry(at, act, "done").to_line())


def usual(home: Home, cloud: bool = False) -> dict[str, Usual]:
    spec = cloud_spec() if cloud else make_spec()
    return {found.phase: found for found in usual_durations(home, spec)}


@pytest.mark.parametrize(("cloud", "target"), [(False, TargetName.LOCAL), (True, TargetName.OPENSTACK)])
def test_without_runs_each_target_has_its_own_reference(home: Home, cloud: bool, target: TargetName) -> None:
    found = usual(home, cloud)
    assert {phase: found[phase].seconds for phase in ("up", "down")} == REFERENCE_S[target]
    assert "reference runs" in found["up"].source
    assert found["job"] == Usual("job", None, "no earlier run of this name here")


def test_every_target_has_a_reference() -> None:
    assert set(REFERENCE_S) == set(TargetName)


def test_own_runs_go_before_the_reference(home: Home) -> None:
    for seconds in (20.0, 30.0, 90.0):
        took(make_record(home), "up", seconds)
    found = usual(home)
    assert (found["up"].seconds, found["up"].source) == (30.0, "3 earlier runs here")
    assert found["down"].seconds == REFERENCE_S[TargetName.LOCAL]["down"]


def test_runs_of_another_target_do_not_count(home: Home) -> None:
    took(make_record(home), "up", 20.0)
    assert usual(home, cloud=True)["up"].seconds == REFERENCE_S[TargetName.OPENSTACK]["up"]


def test_a_jobs_time_is_that_of_the_same_name(home: Home) -> None:
    took(make_record(home, name="other"), "job", 500.0)
    took(make_record(home), "job", 40.0)
    assert usual(home)["job"].seconds == 40.0
