"""Stores that this user, or this site, defines for all specs: `stores.yaml` in dhctl's configuration folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs
from pydantic import Field

from dhctl.infra.data.section import DataStore
from dhctl.infra.errors import SpecError
from dhctl.infra.spec_base import Frozen, Name
from dhctl.infra.yaml_model import parse_mapping, read_text, validated

EXAMPLE = 'docs/data.md, "Stores for all specs"'


class _Definitions(Frozen):
    """The whole file."""

    stores: dict[Name, DataStore] = Field(default_factory=dict)


def user_stores_path() -> Path:
    """`$XDG_CONFIG_HOME/dhctl/stores.yaml`, else `~/.config/dhctl/stores.yaml`."""
    return Path(platformdirs.user_config_dir("dhctl")) / "stores.yaml"


def user_stores(path: Path | None = None) -> dict[str, DataStore]:
    """Its stores; none where there is no such file. Raises SpecError with one sentence a mistake."""
    path = path or user_stores_path()
    if not path.exists():
        return {}
    found = validated(_Definitions, parse_mapping(read_text(path), str(path), EXAMPLE), str(path))
    try:
        return {name: absolute_store(store, path.parent) for name, store in found.stores.items()}
    except (ValueError, RuntimeError, OSError) as error:
        raise SpecError(str(path), [f"holds what is no path ({error})"]) from error


def absolute_store(store: DataStore, base: Path) -> DataStore:
    """Its folder taken from `base`. Raises OSError, ValueError or RuntimeError for what is no path."""
    if "://" in store.url:
        return store
    return store.model_copy(update={"url": str((base / Path(store.url).expanduser()).resolve())})


def merged(own: Mapping[str, DataStore], users: Mapping[str, DataStore]) -> dict[str, DataStore]:
    """Both; a store of the spec goes before the user's of that name, but a residency that either says holds.

    Raises ValueError with a sentence when they say different ones.
    """
    found = {**users, **own}
    for name in own.keys() & users.keys():
        said = {store.residency for store in (own[name], users[name]) if store.residency}
        if len(said) > 1:
            told = " and ".join(sorted(said))
            raise ValueError(f"stores.{name}: the spec and {user_stores_path()} say different residencies ({told})")
        found[name] = own[name].model_copy(update={"residency": next(iter(said), None)})
    return found
