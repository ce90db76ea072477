"""What `plan` and `doctor` say of NetworkPolicy: what an earlier run of this home found on the same cluster."""

from __future__ import annotations

from typing import Any

from dhctl.infra.home import Home
from dhctl.infra.kubernetes.network import UNKNOWN, network_requirement, newest_finding
from dhctl.infra.kubernetes.probe import NOTE, judge
from dhctl.infra.record import RunRecord
from unit.fakes import make_record

HOST = "https://hospital.org:6443"
OPEN = {"doors": {"6379": "open", "8265": "open", "10001": "refused"}, "answers": ["401"], "outside": "open"}
CLOSED = {"doors": dict.fromkeys(("6379", "8265", "10001"), "no answer"), "answers": [], "outside": "open"}
DEAF = {**CLOSED, "outside": "no answer"}


def lived(home: Home, told: dict[str, Any], host: str = HOST) -> RunRecord:
    """A run on Kubernetes whose probe met this."""
    record = make_record(home, target="kubernetes")
    record.ledger.note(NOTE, "note", host=host, **judge(told).to_dict())
    return record


def test_without_an_earlier_run_it_is_not_known(home: Home) -> None:
    lived(home, CLOSED, "https://elsewhere:6443")
    assert newest_finding(home, HOST) is None
    for strict in (False, True):
        row = network_requirement(home, HOST, strict=strict)
        assert (row.have, row.problem) == (UNKNOWN, "")


def test_a_finding_is_told_with_run_and_time(home: Home) -> None:
    record = lived(home, CLOSED)
    row = network_requirement(home, HOST, strict=True)
    assert row.have.startswith("NetworkPolicy is enforced: ")
    assert f"(found by {record.run_id} on 20" in row.have
    assert row.problem == ""


def test_only_strictness_refuses_a_cluster_that_is_known_not_to_enforce(home: Home) -> None:
    lived(home, OPEN)
    assert network_requirement(home, HOST, strict=False).problem == ""
    problem = network_requirement(home, HOST, strict=True).problem
    assert "this cluster does not enforce NetworkPolicy" in problem
    assert "set kubernetes.strict_network: false" in problem


def test_what_could_not_be_told_refuses_nothing(home: Home) -> None:
    lived(home, DEAF)
    row = network_requirement(home, HOST, strict=True)
    assert "cannot be told" in row.have
    assert row.problem == ""
