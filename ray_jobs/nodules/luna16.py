"""The layout of LUNA16: .mhd volumes in any subfolder, annotations.csv, optionally candidates.csv or candidates_V2.csv.

Columns: seriesuid, coordX, coordY, coordZ (patient coordinates in mm) and diameter_mm, or class of a candidate (0, 1).
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.nodules.detection import Blob
from dhctl.ray_jobs.nodules.metaimage import data_file, parse_header
from dhctl.ray_jobs.nodules.sources import Found, Skipped, Source
from dhctl.ray_jobs.nodules.volume import UnusableScanError, Vector
from dhctl.ray_jobs.storage import Store, StoredFile

ANNOTATIONS = "annotations.csv"
CANDIDATES = ("candidates_V2.csv", "candidates.csv")
LUNG_MASKS = "seg-lungs"
"""LUNA16 ships lung masks under the names of the scans in a folder that begins so; they are no scans."""


def find_luna16(data: Store, files: Sequence[StoredFile], with_masks: bool) -> Found:
    """Scans with their annotations; a scan without a row has no nodules. Raises RefusedInputError for a broken table.

    LUNA16 names no patients: each series counts as a patient.
    """
    listed = {file.key: file for file in files}
    headers = [key for key in sorted(listed) if key.lower().endswith(".mhd") and LUNG_MASKS not in key]
    if not headers:
        return Found((), ())
    nodules, lookalikes = _tables(data, listed) if with_masks else ({}, {})
    sources, skipped = [], []
    for key in headers:
        scan = key.rsplit("/", 1)[-1][: -len(".mhd")]
        try:
            beside = key.rpartition("/")[0]
            name = data_file(parse_header(data.read(key).decode("latin-1")))
            values = listed[f"{beside}/{name}" if beside else name]
        except (UnusableScanError, OSError) as error:
            skipped.append(Skipped(scan, str(error)))
        except KeyError:
            skipped.append(Skipped(scan, f"lacks its data file {name}; copy it beside the header"))
        else:
            known = tuple(nodules.get(scan, ())) if with_masks else None
            pair = (listed[key], values)
            sources.append(Source(scan, scan, "metaimage", pair, (), known, tuple(lookalikes.get(scan, ()))))
    here = {source.scan for source in sources} | {row.scan for row in skipped}
    skipped += [
        Skipped(scan, f"is in {ANNOTATIONS}, but no scan of this id is here") for scan in sorted(set(nodules) - here)
    ]
    return Found(tuple(sources), tuple(skipped))


def _tables(data: Store, listed: Mapping[str, StoredFile]) -> tuple[dict[str, list[Blob]], dict[str, list[Vector]]]:
    if ANNOTATIONS not in listed:
        raise RefusedInputError(
            f"{data.url} has .mhd scans but no {ANNOTATIONS}; put LUNA16's table beside the subsets"
        )
    nodules: dict[str, list[Blob]] = defaultdict(list)
    lookalikes: dict[str, list[Vector]] = defaultdict(list)
    for scan, at, diameter in _rows(data, ANNOTATIONS, "diameter_mm"):
        nodules[scan].append(Blob(at, diameter))
    for name in [name for name in CANDIDATES if name in listed][:1]:
        for scan, at, is_nodule in _rows(data, name, "class"):
            if not is_nodule:
                lookalikes[scan].append(at)
    return dict(nodules), dict(lookalikes)


def _rows(data: Store, name: str, last: str) -> Iterator[tuple[str, Vector, float]]:
    reader = csv.DictReader(io.StringIO(data.read(name).decode("utf-8-sig", errors="replace")))
    columns = ("seriesuid", "coordX", "coordY", "coordZ", last)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise RefusedInputError(f"{data.url}/{name} has no column {missing[0]}; it needs {', '.join(columns)}")
    for line, row in enumerate(reader, start=2):
        try:
            x, y, z, value = (float(row[column]) for column in columns[1:])
        except (TypeError, ValueError):
            x = y = z = value = math.nan
        if not row["seriesuid"] or not all(map(math.isfinite, (x, y, z, value))) or value < 0:
            raise RefusedInputError(
                f"{data.url}/{name}, line {line}: a value is missing or no number; mend or remove the line"
            )
        yield row["seriesuid"].strip(), (x, y, z), value
