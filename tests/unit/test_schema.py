"""The JSON schema that editors and checks use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dhctl.infra.spec import schema
from dhctl.infra.spec_file import load_spec

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def objects(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "spec", body
    yield from body["$defs"].items()


def test_every_key_is_described() -> None:
    bare = [
        f"{where}.{key}"
        for where, part in objects(schema())
        for key, value in part.get("properties", {}).items()
        if not value.get("description") and "$ref" not in value
    ]
    assert bare == []


def test_every_section_is_described() -> None:
    assert [name for name, part in objects(schema()) if not part.get("description")] == []


def test_unknown_keys_are_refused_everywhere() -> None:
    open_objects = [w for w, part in objects(schema()) if "properties" in part and part["additionalProperties"]]
    assert open_objects == []


def test_it_is_a_valid_schema_and_takes_the_examples() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    checker = jsonschema.Draft202012Validator(schema())
    for example in EXAMPLES:
        assert [e.message for e in checker.iter_errors(yaml.safe_load(example.read_text()))] == []


@pytest.mark.parametrize(
    "wrong", [{"lease": "2"}, {"lease": 2}, {"workers": {"memory": "2"}}, {"name": "Big"}, {"worker": {}}]
)
def test_it_refuses_what_the_loader_refuses(wrong: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    body = {"name": "a", "job": {"name": "prostate"}, **wrong}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(body)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_loads(example: Path) -> None:
    assert load_spec(example).name
