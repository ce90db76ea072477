"""The receipt: clean only where every look was possible and nothing was found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dhctl.infra.errors import ExitCode, LeftoverError
from dhctl.infra.receipt import Check, Leftover, Receipt

NODE = Leftover("process", "raylet (pid 7)", "kill -9 7")
NONE, LEFT = Check("machine", "processes"), Check("machine", "processes", (NODE,))
HELD = Leftover("network", "net (n1)", "openstack network delete n1", "held by port db")
UNKNOWN = Check("cloud", "servers", (), "it does not answer")


def receipt(*checks: Check) -> Receipt:
    return Receipt("dh-aaaabbbbcc", "trial", "local", "2026-07-01", "2026-07-02", "done", checks, {"workers": 2})


@pytest.mark.parametrize(
    ("checks", "clean"),
    [
        ((NONE,), True),
        ((NONE, NONE), True),
        ((NONE, LEFT), False),
        ((NONE, UNKNOWN), False),
        ((LEFT, UNKNOWN), False),
        ((), False),
    ],
)
def test_clean_means_looked_everywhere_and_found_nothing(checks: tuple[Check, ...], clean: bool) -> None:
    assert receipt(*checks).clean is clean


def test_what_is_found_weighs_more_than_what_could_not_be_looked_at() -> None:
    assert [c.state for c in (NONE, LEFT, UNKNOWN)] == ["none", "left", "unknown"]
    assert Check("a", "b", (NODE,), "and more").state == "left"


@pytest.mark.parametrize("checks", [(NONE,), (NONE, LEFT, UNKNOWN), (Check("networks", "tag", (HELD,)),), ()])
def test_it_survives_being_stored(checks: tuple[Check, ...]) -> None:
    stored = json.loads(json.dumps(receipt(*checks).to_dict()))
    assert Receipt.from_dict(stored) == receipt(*checks)
    assert stored["clean"] is receipt(*checks).clean
    assert [c["state"] for c in stored["checks"]] == [c.state for c in checks]


def test_a_clean_receipt_requires_nothing() -> None:
    receipt(NONE).require_clean()


def test_what_is_left_is_named_with_the_command_that_removes_it() -> None:
    cause = ValueError("why")
    with pytest.raises(LeftoverError) as caught:
        receipt(NONE, LEFT, UNKNOWN).require_clean(cause)
    assert str(caught.value) == (
        "dh-aaaabbbbcc is not clean: process raylet (pid 7) (`kill -9 7`); "
        "cloud could not be looked at: it does not answer; `dhctl down dh-aaaabbbbcc` tries again"
    )
    assert caught.value.exit_code is ExitCode.LEFTOVER
    assert caught.value.__cause__ is cause


def test_more_than_five_things_are_counted() -> None:
    many = Check("machine", "processes", tuple(Leftover("process", str(n), f"kill {n}") for n in range(12)))
    with pytest.raises(LeftoverError, match="7 more"):
        receipt(many).require_clean()


def test_what_could_not_be_deleted_tells_why() -> None:
    assert HELD.text == "network net (n1) (`openstack network delete n1`): held by port db"
    with pytest.raises(LeftoverError, match="held by port db"):
        receipt(Check("networks", "tag", (HELD,))).require_clean()


def test_a_receipt_of_an_older_dhctl_tells_no_reasons() -> None:
    stored = receipt(LEFT).to_dict()
    del stored["checks"][0]["found"][0]["reason"]
    assert Receipt.from_dict(json.loads(json.dumps(stored))) == receipt(LEFT)


def test_remarks_are_kept_and_have_no_part_in_the_verdict() -> None:
    told = replace(receipt(NONE), remarks=("NetworkPolicy is enforced",))
    assert told.clean
    assert Receipt.from_dict(json.loads(json.dumps(told.to_dict()))) == told


def test_a_receipt_of_an_older_version_has_no_remarks() -> None:
    body = receipt(NONE).to_dict()
    del body["remarks"]
    assert Receipt.from_dict(body) == receipt(NONE)
