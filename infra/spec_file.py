"""Reading a spec file: YAML to `RunSpec`, every mistake as a sentence that names the key and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dhctl.infra.data.places import NamedPlace, PlaceError, covers
from dhctl.infra.data.section import DataStore
from dhctl.infra.data.user_stores import absolute_store, merged, user_stores
from dhctl.infra.errors import SpecError
from dhctl.infra.spec import PHANTOMS, RunSpec
from dhctl.infra.yaml_model import parse_mapping, read_text, validated

EXAMPLE = "examples/prostate-local.yaml"


def load_spec(path: Path, *, target: str | None = None) -> RunSpec:
    """The spec in `path`, with its relative folders made absolute against the file's own folder, and `STORE:FOLDER`
    made a URL or folder with the stores of the file and of the user.

    `target` replaces the file's target. Raises SpecError with one sentence per mistake.
    """
    text = read_text(path)
    base = path.resolve().parent
    return parse_spec(text, source=str(path), base=base, target=target, users=user_stores())


def parse_spec(
    text: str,
    *,
    source: str,
    base: Path,
    target: str | None = None,
    users: Mapping[str, DataStore] | None = None,
) -> RunSpec:
    """The spec in `text`; `source` names it in errors, relative folders are taken from `base`, and stores that it does
    not define from `users`.
    """
    tree = parse_mapping(text, source, EXAMPLE)
    if target is not None:
        tree["target"] = target
    spec = validated(RunSpec, tree, source)
    try:
        return _absolute(spec, base, dict(users or {}))
    except (ValueError, RuntimeError, OSError) as error:  # a NUL, a user without a home, a loop of links; stores
        raise SpecError(source, [str(error)]) from error


def _absolute(spec: RunSpec, base: Path, users: Mapping[str, DataStore]) -> RunSpec:
    own = {name: absolute_store(store, base) for name, store in spec.stores.items()}
    stores = merged(own, users)
    data, in_store = _place(spec.data, "data", stores, base)
    output, out_store = _place(spec.output, "output", stores, base)
    told = [place for place in (data, output) if place]
    # Of the user's stores only what this run touches goes into its record: what it names, and whose label binds it.
    kept = {
        name: store
        for name, store in stores.items()
        if name in own
        or name in {in_store, out_store}
        or (store.residency and any(covers(store, place) for place in told))
    }
    cache = {"folder": _path(spec.cache.folder, base), "shared": _path(spec.cache.shared, base)}
    return spec.model_copy(
        update={
            "job": spec.job.model_copy(update={"folder": _path(spec.job.folder, base)}),
            "local": spec.local.model_copy(update={"scratch": _path(spec.local.scratch, base)}),
            "cache": spec.cache.model_copy(update=cache),
            "stores": kept,
            "data": data,
            "output": output,
            "resume": _path(spec.resume, base),
        }
    )


def _place(text: str | None, key: str, stores: Mapping[str, DataStore], base: Path) -> tuple[str | None, str | None]:
    """A URL or an absolute folder, and the store it was named by."""
    if key == "data" and text == PHANTOMS:
        return text, None
    try:
        place = NamedPlace.parse(text) if text else None
        if place:
            return place.resolve(stores), place.store
        if text in stores and not (base / str(text)).exists():
            raise PlaceError(f"'{text}' is a store; write {text}: for all of it, or {text}:FOLDER")
    except PlaceError as error:
        raise PlaceError(f"{key}: {error}") from error
    return _path(text, base), None


def _path(value: str | None, base: Path) -> str | None:
    if value is None or "://" in value:
        return value
    try:
        return str((base / Path(value).expanduser()).resolve())
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{value!r} is no path ({error})") from error
