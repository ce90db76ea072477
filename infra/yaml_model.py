"""Reading a YAML file into a model: every mistake is a sentence that names the key and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dhctl.infra.errors import SpecError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: the parser would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """The text of a file. Raises SpecError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(str(path), [f"cannot be read ({error.strerror})"]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), ["is not UTF-8 text; save it as UTF-8"]) from error


def parse_mapping(text: str, source: str, example: str) -> dict[Any, Any]:
    """The mapping in a YAML text; `source` names it in errors, `example` says where one is shown. Raises SpecError."""
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SpecError(source, [f"{where}{error.problem or 'is not valid YAML'}"]) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # YAML's own dates and tags raise the rest
        raise SpecError(source, [f"is not valid YAML ({' '.join(str(error).split())})"]) from error
    if not isinstance(tree, dict):
        raise SpecError(source, [f"is not a mapping of keys to values; see {example}"])
    return tree


def validated(model: type[Model], tree: Mapping[Any, Any], source: str) -> Model:
    """The model with these values. Raises SpecError with one sentence a mistake."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SpecError(source, [_sentence(e, model) for e in error.errors()]) from error


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    # Pydantic names the kind of a value that may be of several kinds; ours are in angle brackets, and no keys.
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("<"))
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _keys_beside(error["loc"], model)
            return f"unknown key '{key}'{nearest(str(error['loc'][-1]), known)}"
        case "missing":
            return f"key '{key}' is missing"
        case "enum":
            return f"{key}: {error['input']!r} is not known; choose {context.get('expected')}"
        case "string_pattern_mismatch":
            return (
                f"{key}: {error['input']!r} does not fit; use small letters, digits and dashes, at most 40 characters"
            )
        case "value_error":
            return (f"{key}: " if key else "") + str(context.get("error", error["msg"]))
        case _:
            return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"


def _keys_beside(location: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def nearest(wrong: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """`"; did you mean 'x'?"` where something known is near, else the list of what is known."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f" (known here: {', '.join(known)})" if known else ""
