"""The inputs of a type as a table, and what Pulumi's bridge makes of them: checked inputs with their defaults and
autonames, differences, and the outputs of a resource of which nothing is read yet.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from testbeds.openstack.plugin.wire import UNKNOWN, Properties

DEFAULTS = "__defaults"
Shape = Literal["text", "whole", "flag", "texts", "set", "map", "object", "objects"]
PYTHON: Mapping[Shape, tuple[type, ...]] = {
    "text": (str,),
    "whole": (int,),
    "flag": (bool,),
    "texts": (list,),
    "set": (list,),
    "map": (dict,),
    "object": (dict,),
    "objects": (list,),
}


@dataclass(frozen=True)
class Field:
    """One input. `fixed`: a change replaces the resource. `default` is for the inputs, `zero` for the outputs only."""

    shape: Shape = "text"
    fixed: bool = False
    required: bool = False
    default: Any = None
    zero: Any = None
    nested: Mapping[str, Field] = field(default_factory=dict)
    unordered: bool = False


Fields = Mapping[str, Field]


def text(*, fixed: bool = False, required: bool = False, default: str | None = None) -> Field:
    """A string."""
    return Field("text", fixed, required, default)


def whole(*, fixed: bool = False, required: bool = False, default: int | None = None) -> Field:
    """A whole number."""
    return Field("whole", fixed, required, default)


def flag(*, fixed: bool = False, default: bool | None = None, zero: bool | None = None) -> Field:
    """A boolean. A default of false is `zero`: the bridge keeps it out of the inputs."""
    return Field("flag", fixed, default=default, zero=zero)


def texts(*, fixed: bool = False) -> Field:
    """Strings, in order."""
    return Field("texts", fixed)


def text_set(*, fixed: bool = False) -> Field:
    """Strings, in any order."""
    return Field("set", fixed, unordered=True)


def mapping(*, fixed: bool = False) -> Field:
    """Strings by name."""
    return Field("map", fixed)


def single(nested: Fields, *, fixed: bool = False) -> Field:
    """One object."""
    return Field("object", fixed, nested=nested)


def several(nested: Fields, *, fixed: bool = False, unordered: bool = False) -> Field:
    """Objects."""
    return Field("objects", fixed, nested=nested, unordered=unordered)


def check(fields: Fields, news: Properties, olds: Properties, name: str, seed: bytes) -> tuple[Properties, list[str]]:
    """The inputs as they will stand in the state, and what is wrong with them."""
    inputs = _defaulted(fields, news)
    if "name" in fields and "name" not in inputs:
        kept = olds.get("name") if "name" in olds.get(DEFAULTS, ()) else None
        inputs["name"] = kept or f"{name}-{_suffix(seed)}"
        inputs[DEFAULTS] = sorted([*inputs[DEFAULTS], "name"])
    return inputs, list(_faults(fields, inputs, name))


def _suffix(seed: bytes) -> str:
    """Seven hexadecimal digits, the same ones for the same seed."""
    return hashlib.sha256(seed).hexdigest()[:7] if seed else secrets.token_hex(4)[:7]


def _defaulted(fields: Fields, news: Properties) -> Properties:
    inputs = {name: value for name, value in news.items() if value is not None and name != DEFAULTS}
    added = {name: f.default for name, f in fields.items() if f.default is not None and name not in inputs}
    inputs |= added
    for name, value in inputs.items():
        nested = fields[name].nested if name in fields else {}
        if nested and isinstance(value, dict):
            inputs[name] = _defaulted(nested, value)
        elif nested and isinstance(value, list):
            inputs[name] = [_defaulted(nested, item) if isinstance(item, dict) else item for item in value]
    return inputs | {DEFAULTS: sorted(added)}


def _faults(fields: Fields, inputs: Properties, at: str) -> Iterable[str]:
    """Sentences, as the bridge tells of arguments that Terraform's schema refuses."""
    for name, f in fields.items():
        if f.required and name not in inputs:
            argument = snake(name)
            yield (
                f'Missing required argument. The argument "{argument}" is required, but no definition was found.. '
                f"Examine values at '{at}.{name}'."
            )
    for name, value in inputs.items():
        if name == DEFAULTS:
            continue
        if name not in fields:
            yield f"Invalid or unknown key. Examine values at '{at}.{name}'."
        elif value != UNKNOWN and not _fits(fields[name], value):
            yield f"expected type {fields[name].shape}, got {type(value).__name__}. Examine values at '{at}.{name}'."
        else:
            for index, item in enumerate(_items(fields[name], value)):
                yield from _faults(fields[name].nested, item, f"{at}.{name}[{index}]")


def _items(f: Field, value: Any) -> list[Properties]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if f.nested and isinstance(item, dict)]


def _fits(f: Field, value: Any) -> bool:
    if isinstance(value, bool):
        return f.shape == "flag"
    return isinstance(value, PYTHON[f.shape])


@dataclass(frozen=True)
class Difference:
    """What changed between the inputs of a resource and new ones."""

    changed: Mapping[str, Literal["ADD", "DELETE", "UPDATE"]]
    replacing: tuple[str, ...]


def difference(fields: Fields, olds: Properties, news: Properties, ignored: Iterable[str] = ()) -> Difference:
    """By property; a value that is not known yet counts as changed."""
    changed: dict[str, Literal["ADD", "DELETE", "UPDATE"]] = {}
    for name in sorted({*olds, *news} - {DEFAULTS, *ignored}):
        old, new = olds.get(name), news.get(name)
        if _comparable(fields.get(name), old) != _comparable(fields.get(name), new):
            changed[name] = "ADD" if old is None else "DELETE" if new is None else "UPDATE"
    return Difference(changed, tuple(name for name in changed if name in fields and fields[name].fixed))


def _comparable(f: Field | None, value: Any) -> Any:
    plain = without_defaults(value)
    return sorted(plain, key=repr) if f and f.unordered and isinstance(plain, list) else plain


def without_defaults(value: Any) -> Any:
    """A property value without the bridge's notes in it."""
    if isinstance(value, dict):
        return {name: without_defaults(item) for name, item in value.items() if name != DEFAULTS}
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


def blank(fields: Fields, inputs: Properties) -> Properties:
    """The outputs that only repeat the inputs: all fields, None (or the empty value) where nothing was given."""
    return {name: _filled(f, without_defaults(inputs.get(name))) for name, f in fields.items()}


def _filled(f: Field, value: Any) -> Any:
    empty: Mapping[str, Any] = {"text": "", "whole": 0, "flag": False}
    if value is None:
        return [] if f.shape == "objects" else f.zero
    if not f.nested:
        return value
    filled = [
        {
            n: item.get(n, sub.default if sub.default is not None else empty.get(sub.shape))
            for n, sub in f.nested.items()
        }
        for item in _items(f, value)
    ]
    return filled if f.shape == "objects" else filled[0]


def refreshed_inputs(fields: Fields, inputs: Properties, outputs: Properties, silent: Iterable[str]) -> Properties:
    """The old inputs, with what was found to differ in reality. `silent` are outputs that do not tell the input."""
    found = dict(inputs)
    for name, f in fields.items():
        if name in inputs and name in outputs and name not in silent and not f.nested:
            found[name] = outputs[name]
    return found


def snake(name: str) -> str:
    """Terraform's spelling, which is the API's too: ipVersion -> ip_version, accessIpV4 -> access_ip_v4."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
