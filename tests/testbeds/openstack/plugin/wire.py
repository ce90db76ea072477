"""Between Pulumi's property values on the wire (protobuf Structs) and Python's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value  # type: ignore[import-untyped]

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What stands in a preview for a value that is not known yet (sdk/go/common/resource/plugin/rpc.go)."""

Properties = dict[str, Any]


def to_python(struct: Struct) -> Properties:
    """Whole numbers become int: the wire has floats only."""
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return to_python(value.struct_value)
        case "list_value":
            return _list(value.list_value)
        case _:
            return None


def _list(values: ListValue) -> list[Any]:
    return [_value(value) for value in values.values]


def to_struct(properties: Mapping[str, Any]) -> Struct:
    """The Struct of a dict of JSON values; None becomes null."""
    struct = Struct()
    struct.update(dict(properties))
    return struct
