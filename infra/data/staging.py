"""Staging: a dataset is checked for labels and identifiers, then copied into another store."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from dhctl.infra.data.copying import Copied, copy_dataset, files_of
from dhctl.infra.data.datasets import Dataset, store_troubles
from dhctl.infra.data.destination import destination
from dhctl.infra.data.labels import store_labels
from dhctl.infra.data.places import covers
from dhctl.infra.data.progress import Progress
from dhctl.infra.data.section import DataStore
from dhctl.infra.errors import RefusedError, UsageError
from dhctl.infra.events import Report, Warned
from dhctl.ray_jobs.data.identifiers import HEADER_BYTES, Finding, findings_in, may_be_dicom
from dhctl.ray_jobs.storage import Store, StoredFile

THREADS, BATCH = 8, 64
SHOWN = 12


class ResidencyError(RefusedError):
    """The copy would leave the site where the data must stay."""


class IdentifiersFoundError(RefusedError):
    """DICOM files hold what the basic de-identification profile wants away."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        lines = [f"\n  - {line}" for line in _summed(findings)]
        super().__init__(
            "DICOM headers hold identifiers (PS3.15, basic de-identification profile):" + "".join(lines),
            "de-identify them first, or give --allow-identifiers where that is allowed",
        )


@dataclass(frozen=True)
class Staged:
    """How staging ended."""

    copied: Copied
    dicom_files: int
    """DICOM headers that were looked at."""
    findings: tuple[Finding, ...]
    """Identifiers in them; only with --allow-identifiers more than none."""
    seconds: float


def stage(source: Dataset, target: Dataset, report: Report, *, allow_identifiers: bool = False) -> Staged:
    """Copies a dataset, and writes its manifest beside the copy. Goes on where an earlier call stopped.

    Raises ResidencyError, IdentifiersFoundError, UsageError where one place lies in the other, RefusedError.
    """
    if covers(DataStore(url=source.url), target.url) or covers(DataStore(url=target.url), source.url):
        raise UsageError(f"{target.told} and {source.told} lie in one another", "choose another folder")
    _require_same_site(source, target)
    began = time.monotonic()

    def tell(text: str) -> None:
        report(Warned(text))

    here, there = source.open(tell), target.open(tell, wants_files=False)
    with store_troubles():
        files = files_of(here)
        if not files:
            raise RefusedError(f"{source.told} holds no files", "check the folder, `dhctl data ls` shows what is there")
        dicom = [file for file in files if may_be_dicom(file.key)]
        findings = tuple(_findings(here, dicom, Progress(report, "check headers", len(dicom), "file").add))
    if findings and not allow_identifiers:
        raise IdentifiersFoundError(findings)
    total = sum(file.size_bytes for file in files)
    with store_troubles():
        copied = copy_dataset(here, destination(there), files, Progress.of_bytes(report, "copy", total).add)
    return Staged(copied, len(dicom), findings, time.monotonic() - began)


def _require_same_site(source: Dataset, target: Dataset) -> None:
    """A labelled dataset goes only into a store that carries the same label."""
    wanted = {label.residency: label.by for label in source.labels}
    found = {label.residency for label in store_labels(target.url, target.stores)}
    for residency, by in wanted.items():
        if found != {residency}:
            said = f"is for {', '.join(sorted(found))}" if found else "says no residency"
            raise ResidencyError(
                f"{source.told} must stay at {residency} ({by}), but the store of {target.told} {said}",
                f"choose a store with `residency: {residency}`",
            )


def _findings(store: Store, files: Sequence[StoredFile], looked_at: Callable[[int], None]) -> Iterator[Finding]:
    """Headers are fetched side by side, and judged here: parsing holds the interpreter."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="dhctl-headers") as pool:
        for file, header in _headers(store, files, pool):
            found, size = None, HEADER_BYTES
            while found is None:
                found = findings_in(file.key, header, complete=len(header) >= file.size_bytes)
                if found is None:
                    size *= 4
                    header = store.head(file.key, size)  # noqa: PLW2901 - the same header, more of it
            yield from found
            looked_at(1)


def _headers(store: Store, files: Sequence[StoredFile], pool: Executor) -> Iterator[tuple[StoredFile, bytes]]:
    """A few dozen at a time, so that they do not pile up in memory."""
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        yield from zip(batch, pool.map(lambda file: store.head(file.key, HEADER_BYTES), batch), strict=True)


def _summed(findings: Sequence[Finding]) -> list[str]:
    """One line an attribute: never a value, one file as an example."""
    files: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for finding in findings:
        files[finding.tag, finding.keyword, finding.why].append(finding.file)
    lines = [
        f"{f'{tag} ' if tag else ''}{keyword}: {why}; in {len(set(where))}, such as {where[0]}"
        for (tag, keyword, why), where in files.items()
    ]
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"{more} more attributes"] if more > 0 else lines
