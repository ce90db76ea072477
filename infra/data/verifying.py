"""Comparing a dataset with its manifest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dhctl.infra.data.copying import files_of
from dhctl.infra.data.datasets import Dataset, store_troubles
from dhctl.infra.data.progress import Progress
from dhctl.infra.errors import RefusedError
from dhctl.infra.events import Report, Warned
from dhctl.ray_jobs.data.manifest import MANIFEST, ManifestEntry, read_manifest
from dhctl.ray_jobs.storage import Store

THREADS = 4
SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """A file that is not what the manifest says."""

    file: str
    what: str
    """`missing`, `not in the manifest`, `another size`, `another content`."""


class DataDiffersError(RefusedError):
    """A dataset is not what its manifest says."""

    def __init__(self, told: str, differences: Sequence[Difference]) -> None:
        self.differences = tuple(differences)
        lines = [f"\n  - {found.file}: {found.what}" for found in differences[:SHOWN]]
        if len(differences) > SHOWN:
            lines.append(f"\n  - {len(differences) - SHOWN} more; --json names all")
        super().__init__(
            f"{told} is not what its manifest says:" + "".join(lines),
            "`dhctl data stage` copies changed and missing files again",
        )


@dataclass(frozen=True)
class Verified:
    """What was compared."""

    files: int
    size_bytes: int
    differences: tuple[Difference, ...]
    seconds: float


def verify(dataset: Dataset, report: Report) -> Verified:
    """Reads every file of the manifest, and names what differs. Raises RefusedError where there is no manifest."""
    began = time.monotonic()
    store = dataset.open(lambda text: report(Warned(text)))
    with store_troubles():
        manifest = read_manifest(store)
        if manifest is None:
            raise RefusedError(f"{dataset.told} has no {MANIFEST}", "`dhctl data stage` writes one beside its copy")
        sizes = {file.key: file.size_bytes for file in files_of(store)}
        total = sum(entry.size_bytes for entry in manifest.values())
        add = Progress.of_bytes(report, "verify", total).add
        with ThreadPoolExecutor(THREADS, thread_name_prefix="dhctl-verify") as pool:
            told = list(pool.map(lambda entry: _compared(store, entry, sizes.get(entry.key), add), manifest.values()))
    found = [Difference(entry.key, what) for entry, what in zip(manifest.values(), told, strict=True) if what]
    found += [Difference(key, "not in the manifest") for key in sizes if key not in manifest]
    ordered = tuple(sorted(found, key=lambda difference: difference.file))
    return Verified(len(manifest), total, ordered, time.monotonic() - began)


def _compared(store: Store, entry: ManifestEntry, size: int | None, add: Callable[[int], None]) -> str:
    """What differs, or ""."""
    if size != entry.size_bytes:
        add(entry.size_bytes)
        return "missing" if size is None else "another size"
    digest = hashlib.sha256()
    for content in store.chunks(entry.key):
        digest.update(content)
        add(len(content))
    return "" if digest.hexdigest() == entry.sha256 else "another content"
