"""What the stand-in makes of inputs, against the state that the official plugin wrote (golden.json). No cloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbeds.openstack.plugin.fields import DEFAULTS, blank, check, difference, refreshed_inputs, without_defaults
from testbeds.openstack.plugin.registry import DESCRIPTION, KINDS, schema

GOLDEN = [r for r in json.loads((Path(__file__).parent / "golden.json").read_text()) if r["type"] in KINDS]
BOOK_KEEPING = {"__meta", "__pulumi_raw_state_delta"}
SEED = b"0123456789abcdef0123456789abcdef"


def of_type(token: str) -> dict[str, Any]:
    return next(resource for resource in GOLDEN if resource["type"] == token)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda resource: resource["type"].rpartition(":")[2])
def test_checked_inputs_are_those_of_the_official_plugin(golden: dict[str, Any]) -> None:
    defaulted = golden["inputs"][DEFAULTS]
    told = {name: value for name, value in golden["inputs"].items() if name not in defaulted}
    inputs, faults = check(KINDS[golden["type"]].fields, without_defaults(told), {}, "n", SEED)
    assert faults == []
    wanted = golden["inputs"] | ({"name": inputs["name"]} if "name" in defaulted else {})
    assert inputs == wanted


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda resource: resource["type"].rpartition(":")[2])
def test_outputs_have_the_names_of_the_official_plugin(golden: dict[str, Any]) -> None:
    names = {*KINDS[golden["type"]].blank(golden["inputs"]), "id"}
    assert names == set(golden["outputs"]) - BOOK_KEEPING


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda resource: resource["type"].rpartition(":")[2])
def test_an_unchanged_resource_is_the_same(golden: dict[str, Any]) -> None:
    kind = KINDS[golden["type"]]
    told = {name: value for name, value in golden["inputs"].items() if name not in golden["inputs"][DEFAULTS]}
    news, _ = check(kind.fields, without_defaults(told), golden["inputs"], "another", b"x" * 32)
    assert not difference(kind.fields, golden["inputs"], news).changed
    refreshed = refreshed_inputs(kind.fields, golden["inputs"], golden["outputs"], kind.silent)
    assert not difference(kind.fields, refreshed, news).changed


def test_all_golden_types_are_known() -> None:
    assert {resource["type"] for resource in GOLDEN} == set(KINDS) - {"openstack:blockstorage/volume:Volume"}
    assert len(GOLDEN) == 13


def test_a_name_is_kept_and_else_has_seven_digits_of_the_seed() -> None:
    fields = KINDS["openstack:networking/network:Network"].fields
    made, _ = check(fields, {}, {}, "n", SEED)
    assert made["name"].startswith("n-")
    assert len(made["name"]) == len("n-51ed538")
    assert check(fields, {}, {}, "n", SEED)[0] == made
    assert check(fields, {}, {}, "n", b"other")[0] != made
    assert check(fields, {}, made, "n", b"other")[0] == made
    named, _ = check(fields, {"name": "mine"}, made, "n", SEED)
    assert (named["name"], named[DEFAULTS]) == ("mine", [])


def test_what_terraform_refuses_is_refused() -> None:
    fields = KINDS["openstack:networking/subnet:Subnet"].fields
    _, faults = check(fields, {"cidr": "10.0.0.0/24"}, {}, "s", SEED)
    assert faults == [
        'Missing required argument. The argument "network_id" is required, but no definition was found.. '
        "Examine values at 's.networkId'."
    ]
    groups = KINDS["openstack:compute/serverGroup:ServerGroup"].fields
    _, faults = check(groups, {"policies": ["affinity"]}, {}, "g", SEED)
    assert faults == ["expected type text, got list. Examine values at 'g.policies'."]
    _, faults = check(fields, {"networkId": "n", "ip_version": 4}, {}, "s", SEED)
    assert faults == ["Invalid or unknown key. Examine values at 's.ip_version'."]


def test_a_change_replaces_where_terraform_forces_it() -> None:
    fields = KINDS["openstack:networking/port:Port"].fields
    olds = of_type("openstack:networking/port:Port")["inputs"]
    renamed = difference(fields, olds, olds | {"name": "another"})
    assert (dict(renamed.changed), renamed.replacing) == ({"name": "UPDATE"}, ())
    moved = difference(fields, olds, olds | {"networkId": "another"})
    assert moved.replacing == ("networkId",)
    assert not difference(fields, olds, olds | {"networkId": "another"}, ["networkId"]).changed
    tagged = {"tags": ["a", "b"]}
    assert not difference(fields, olds | tagged, olds | {"tags": ["b", "a"]}).changed
    assert dict(difference(fields, olds | tagged, olds).changed) == {"tags": "DELETE"}


def test_user_data_is_told_as_its_hash() -> None:
    golden = of_type("openstack:compute/instance:Instance")
    kind = KINDS[golden["type"]]
    assert kind.blank(golden["inputs"])["userData"] == golden["outputs"]["userData"]
    refreshed = refreshed_inputs(kind.fields, golden["inputs"], golden["outputs"], kind.silent)
    assert refreshed["userData"] == golden["inputs"]["userData"]


def test_nested_objects_are_filled_as_by_the_bridge() -> None:
    golden = of_type("openstack:networking/port:Port")
    assert blank(KINDS[golden["type"]].fields, golden["inputs"])["fixedIps"] == golden["outputs"]["fixedIps"]


def test_the_schema_says_what_it_is() -> None:
    told = json.loads(schema())
    assert told["description"] == DESCRIPTION
    assert "stand-in" in DESCRIPTION
    assert set(told["resources"]) == set(KINDS)
