"""Tables and JSON of `dhctl data ls`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType

from dhctl.cli.tables import plain_table
from dhctl.infra.data.datasets import Dataset
from dhctl.infra.data.listing import Listing
from dhctl.infra.data.section import DataStore
from dhctl.infra.data.user_stores import user_stores_path
from dhctl.infra.units import format_size

SHOWN = 200
"""Rows for people; --json has all."""


def stores_body(stores: Mapping[str, DataStore]) -> list[dict[str, Any]]:
    """One object a store."""
    return [{"name": name, **store.model_dump()} for name, store in sorted(stores.items())]


def stores_table(stores: Mapping[str, DataStore]) -> RenderableType:
    """One row a store."""
    if not stores:
        return plain_table((f"no stores are defined in {user_stores_path()}",), [])
    rows = [(name, store.url, store.residency or "") for name, store in sorted(stores.items())]
    return plain_table(("store", "url", "residency"), rows)


def listing_body(dataset: Dataset, found: Listing) -> dict[str, Any]:
    """Rows and their sums, and who says where the data may be used."""
    return {
        "place": dataset.told,
        "files": found.files,
        "size_bytes": found.size_bytes,
        "labels": [asdict(label) for label in dataset.labels],
        "rows": [asdict(row) for row in found.rows],
    }


def listing_table(dataset: Dataset, found: Listing) -> RenderableType:
    """Folders first; the sums last."""
    rows = [(row.name, str(row.files), format_size(row.size_bytes)) for row in found.rows[:SHOWN]]
    if len(found.rows) > SHOWN:
        rows.append((f"... {len(found.rows) - SHOWN} more", "", ""))
    rows.append(("in all", str(found.files), format_size(found.size_bytes)))
    told = [f"may be used at {label.residency} only ({label.by})" for label in dataset.labels]
    return Group(plain_table(("name", "files", "size"), rows), *told)
