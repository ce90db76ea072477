"""From a data folder to usable pictures: its description is found, files and lesions are matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.skin.ecvl import is_dataset, read_dataset
from dhctl.ray_jobs.skin.isic import Table, read_labels, read_lesions, read_table
from dhctl.ray_jobs.skin.pictures import Description, Listing, Picture, Row, Skipped, files_by_name
from dhctl.ray_jobs.skin.settings import Settings
from dhctl.ray_jobs.storage import Store, StoredFile


def list_pictures(data: Store, settings: Settings) -> Listing:
    """The pictures of a data folder in the layout of ISIC or with an ECVL dataset YAML, which comes first.

    Pictures without a row, and rows without a picture, are left out and named. Raises RefusedInputError where there is
    no description or it cannot be used, and where nothing is left.
    """
    files = [file for file in data.files(deep=True) if not _hidden(file.key)]
    tables = [read_table(data.read(file.key), f"{data.url}/{file.key}") for file in files if _ends(file, ".csv")]
    described = _described(data, files, tables, settings)
    lesions = {name: lesion for table in tables for name, lesion in read_lesions(table).items()}
    pictures, skipped = _matched(described, files, lesions)
    if not pictures:
        first = f": {skipped[0].image} {skipped[0].reason}" if skipped else ""
        raise RefusedInputError(f"no picture of {described.source} is usable{first}; check the names and the folder")
    return Listing(*_without_empty_classes(described, pictures), tuple(skipped))


def _described(data: Store, files: Sequence[StoredFile], tables: Sequence[Table], settings: Settings) -> Description:
    """What the data folder says of its pictures, by the file that the settings name or the only one that can be."""
    labelled = {table.source: table for table in tables if table.has_labels}
    if settings.table is not None:
        named = f"{data.url}/{settings.table}"
        if settings.table not in {file.key for file in files}:
            raise RefusedInputError(f"job.params.table is '{settings.table}', which is not in {data.url}")
        if settings.table.lower().endswith((".yml", ".yaml")):
            return read_dataset(data, settings.table, settings.classes)
        table = labelled.get(named) or read_table(data.read(settings.table), named)
        return read_labels(table, settings.classes)
    datasets = [file.key for file in files if _ends(file, ".yml", ".yaml") and is_dataset(data.read(file.key))]
    found = datasets or sorted(labelled) or ([tables[0].source] if len(tables) == 1 else [])
    if not found:
        raise RefusedInputError(
            f"{data.url} has no table of labels ({len(tables)} other CSV files) and no dataset YAML; put a CSV with "
            "the columns image and one a class (ISIC), or image and label, beside the pictures"
        )
    if len(found) > 1:
        raise RefusedInputError(
            f"{data.url} has {len(found)} descriptions: {', '.join(found)}; say which: params.table"
        )
    if datasets:
        return read_dataset(data, datasets[0], settings.classes)
    return read_labels(labelled.get(found[0], tables[0]), settings.classes)


def _matched(
    described: Description, files: Sequence[StoredFile], lesions: Mapping[str, str]
) -> tuple[list[Picture], list[Skipped]]:
    """Rows with their files and lesions, in the order of the names; and rows and files that stand alone."""
    by_key, by_name = {file.key: file for file in files}, files_by_name(files)
    pictures, skipped, alone = [], [], 0
    for row in described.rows:
        file = by_key.get(row.key) if row.key else _only(by_name.get(row.name, []))
        if file is None:
            skipped.append(Skipped(row.name, f"no file {row.key or row.name} is in the data folder"))
            continue
        lesion = row.lesion or lesions.get(row.name)
        alone += lesion is None
        pictures.append(Picture(row.name, row.label, lesion or f"{row.name} alone", file, row.part))
    if alone:
        report.warning(
            f"{described.source}: {alone} pictures have no lesion_id; each is taken as a lesion of its own, so "
            "pictures of one lesion may be on both sides of the split and the score may be too good"
        )
    if not any(row.key for row in described.rows):  # a dataset YAML may well describe a part of a folder
        skipped += [Skipped(name, "has no row in the table") for name in set(by_name) - _names(described.rows)]
    return sorted(pictures, key=lambda picture: picture.name), sorted(skipped, key=lambda row: row.image)


def _names(rows: Sequence[Row]) -> set[str]:
    return {row.name for row in rows}


def _only(files: Sequence[StoredFile]) -> StoredFile | None:
    """The file of a name. Raises RefusedInputError where there are several."""
    if len(files) > 1:
        both = ", ".join(file.key for file in files)
        raise RefusedInputError(f"two files are the picture of one row: {both}; remove one")
    return files[0] if files else None


def _without_empty_classes(
    described: Description, pictures: Sequence[Picture]
) -> tuple[tuple[str, ...], tuple[Picture, ...]]:
    """Classes that have pictures, and the pictures with their place among these.

    ISIC 2019 names a class UNK of which it has none. Raises RefusedInputError where fewer than two are left.
    """
    count = Counter(picture.label for picture in pictures)
    kept = [label for label in range(len(described.classes)) if count[label]]
    empty = [name for label, name in enumerate(described.classes) if not count[label]]
    if len(kept) < 2:
        raise RefusedInputError(
            f"{described.source}: all pictures are of class {described.classes[kept[0]]} (none of "
            f"{', '.join(empty) or 'another'}); a classifier needs two classes"
        )
    if empty:
        report.warning(f"{described.source}: no picture is of class {', '.join(empty)}; the model does without it")
    place = {label: index for index, label in enumerate(kept)}
    moved = (Picture(p.name, place[p.label], p.lesion, p.file, p.part) for p in pictures)
    return tuple(described.classes[label] for label in kept), tuple(moved)


def _hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _ends(file: StoredFile, *suffixes: str) -> bool:
    return file.key.lower().endswith(suffixes)
