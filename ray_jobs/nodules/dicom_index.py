"""Which DICOM files belong together: a first look at every header, without the pixels."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from dhctl.ray_jobs.nodules.dicom_seg import referenced_series
from dhctl.ray_jobs.nodules.sources import Found, Skipped, Source
from dhctl.ray_jobs.pipeline.spread import Lost, Spread
from dhctl.ray_jobs.storage import Store, StoredFile

SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file of these endings must be DICOM; others are taken when they begin as DICOM files do."""

HEAD_BYTES = 64 * 1024
"""Most headers end before; where one does not, the file is read whole."""

FILES_PER_TASK = 500

LAST_GROUP = 0x0020
"""What is looked for stands in groups 0008 to 0020, and elements are sorted."""


@dataclass(frozen=True)
class Header:
    """What the index must know of a DICOM file."""

    file: StoredFile
    modality: str
    series: str
    study: str
    patient: str
    refers_to: tuple[str, ...]


@dataclass(frozen=True)
class IndexTask:
    """Files to look at."""

    files: tuple[StoredFile, ...]
    data: Store


def find_series(data: Store, files: Sequence[StoredFile], spread: Spread, with_masks: bool) -> Found:
    """CT series with the DICOM-SEG objects that refer to them; without `with_masks`, all CT series."""
    headers, skipped = _headers(data, files, spread)
    series: dict[str, list[Header]] = defaultdict(list)
    masks: dict[str, list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda one: one.file.key):
        if header.modality == "CT":
            series[header.series].append(header)
        elif header.modality == "SEG":
            for uid in header.refers_to or ("",):
                masks[uid].append(header)
    sources = []
    for uid, slices in series.items():
        patients = {one.patient or f"study {one.study}" for one in slices}
        if len(patients) > 1:
            skipped.append(Skipped(uid, f"has slices of {len(patients)} patients; give each series its own UID"))
        elif with_masks and not masks[uid]:
            skipped.append(Skipped(uid, _why_unmarked(slices, masks)))
        else:
            sources.append(
                Source(uid, patients.pop(), "dicom", _files(slices), _files(masks[uid]) if with_masks else ())
            )
    lone = {uid: held for uid, held in masks.items() if uid not in series} if with_masks else {}
    for uid, held in lone.items():
        skipped += [
            Skipped(one.file.key, f"is a DICOM-SEG of the series {uid or '(none named)'}, which is not here")
            for one in held
        ]
    return Found(tuple(sources), tuple(skipped))


def look_at(task: IndexTask) -> list[Header | Skipped]:
    """Headers of the DICOM files among these files; other files are passed over."""
    found: list[Header | Skipped] = []
    for file in task.files:
        try:
            header = _header(task.data, file)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
            if file.key.lower().endswith(SUFFIXES):
                reason = str(error) or type(error).__name__
                found.append(Skipped(file.key, f"cannot be read as DICOM: {reason}"))
            continue
        if header.modality in ("CT", "SEG"):
            found.append(header)
    return found


def _headers(data: Store, files: Sequence[StoredFile], spread: Spread) -> tuple[list[Header], list[Skipped]]:
    tasks = [IndexTask(tuple(files[i : i + FILES_PER_TASK]), data) for i in range(0, len(files), FILES_PER_TASK)]
    headers: list[Header] = []
    skipped: list[Skipped] = []
    for task, outcome in spread.each(look_at, tasks):
        if isinstance(outcome, Lost):
            skipped += [Skipped(file.key, outcome.reason) for file in task.files]
            continue
        headers += [one for one in outcome if isinstance(one, Header)]
        skipped += [one for one in outcome if isinstance(one, Skipped)]
    return headers, skipped


def _header(data: Store, file: StoredFile) -> Header:
    head = data.head(file.key, HEAD_BYTES)
    try:
        found = _until_last_group(head)
    except (EOFError, OSError, ValueError):
        if len(head) == file.size_bytes:
            raise
        found = _until_last_group(data.read(file.key))
    return Header(
        file=file,
        modality=str(found.get("Modality", "")),
        series=str(found.get("SeriesInstanceUID", "")),
        study=str(found.get("StudyInstanceUID", "")),
        patient=str(found.get("PatientID", "") or "").strip(),
        refers_to=referenced_series(found),
    )


def _until_last_group(content: bytes) -> Dataset:
    def past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag.group > LAST_GROUP

    return read_partial(io.BytesIO(content), stop_when=past)


def _why_unmarked(slices: Sequence[Header], masks: dict[str, list[Header]]) -> str:
    """A SEG of the same study that refers elsewhere is worth a name: it is the usual mistake of an export."""
    study = slices[0].study
    near = [(one, uid) for uid, held in masks.items() for one in held if uid and one.study == study]
    if near:
        one, uid = near[0]
        return f"has no DICOM-SEG: {one.file.key} of its study refers to another series ({uid})"
    return "has no DICOM-SEG; draw its nodules, or an empty segment where it has none"


def _files(headers: Iterable[Header]) -> tuple[StoredFile, ...]:
    return tuple(header.file for header in headers)
