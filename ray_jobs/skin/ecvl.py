"""The dataset YAML of ECVL and EDDL, the libraries of the University of Modena and Reggio Emilia.

    name: isic            classes: [MEL, NV]        features: [lesion_id]
    images:
      - location: images/ISIC_0024306.jpg           # relative to the YAML
        label: NV                                   # a class or its position
        values: [HAM_0000550]                       # one a feature, or a mapping by feature
    split: {training: [0], validation: [], test: []}    # positions in `images`

Read as ECVL's own parser reads it: modules/dataset/src/dataset_parser.cpp of github.com/deephealthproject/ecvl.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.pipeline.split import Part
from dhctl.ray_jobs.skin.isic import LESION_COLUMNS
from dhctl.ray_jobs.skin.pictures import Description, Row, position, stem
from dhctl.ray_jobs.storage import Store

PARTS: Mapping[str, Part] = {"training": "train", "validation": "validation", "test": "test"}
"""ECVL's names of the parts of a split, and ours."""


def is_dataset(content: bytes) -> bool:
    """Whether a YAML file may be a dataset: it has the key `images` on its first level."""
    return content.startswith(b"images:") or b"\nimages:" in content


def read_dataset(data: Store, key: str, chosen: tuple[str, ...] | None) -> Description:
    """Pictures, classes and split of the dataset YAML at a key of the data store.

    The classes are `chosen`, else those of the YAML. Raises RefusedInputError with the place of the first problem.
    """
    source = f"{data.url}/{key}"
    tree = _parsed(data.read(key), source)
    classes = tuple(str(name) for name in _list_of(tree, "classes", source))
    features = [str(name).lower() for name in _list_of(tree, "features", source)]
    parts = _parts(tree.get("split"), len(_list_of(tree, "images", source)), source)
    if not classes:
        raise RefusedInputError(f"{source} has no classes; this job needs the names of the lesion classes there")
    rows = []
    for index, image in enumerate(tree["images"]):
        where = f"{source}, images[{index}]"
        if not isinstance(image, Mapping) or image.get("label") is None:
            if index not in parts and parts:  # pictures that nobody uses may do without
                continue
            raise RefusedInputError(f"{where} has no label; give it one of {', '.join(classes)}, or remove it")
        if parts and index not in parts:
            continue
        location = _key(image.get("location"), data, posixpath.dirname(key), where)
        label = position(_label(image["label"], classes, where), chosen or classes, where)
        lesion = _lesion(image.get("values"), features, where)
        rows.append(Row(stem(location), label, location, lesion, parts.get(index)))
    if parts and len(rows) < len(tree["images"]):
        report.warning(
            f"{source}: {len(tree['images']) - len(rows)} pictures are in no part of its split, and not used"
        )
    return Description(source, chosen or classes, tuple(_named_apart(rows, source)))


def _named_apart(rows: Sequence[Row], source: str) -> Iterator[Row]:
    """Pictures of one name in several folders get their paths as names. Refuses one listed twice."""
    names, keys = Counter(row.name for row in rows), Counter(row.key for row in rows)
    for row in rows:
        if keys[row.key] > 1:
            raise RefusedInputError(f"{source}: {row.key} is there {keys[row.key]} times; leave one of the entries")
        yield row if names[row.name] == 1 or row.key is None else replace(row, name=row.key)


def _parsed(content: bytes, source: str) -> dict[str, Any]:
    try:
        # The C parser: a set of 25,000 pictures takes a second with it and half a minute without.
        tree = yaml.load(content, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise RefusedInputError(f"{source} is broken YAML: {said}; correct it there") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("images"), list) or not tree["images"]:
        raise RefusedInputError(f"{source} has no list `images`; write one entry a picture, with location and label")
    return tree


def _list_of(tree: Mapping[str, Any], name: str, source: str) -> Sequence[Any]:
    value = tree.get(name) or []
    if not isinstance(value, list):
        raise RefusedInputError(f"{source}: {name} is a {type(value).__name__}; write a list")
    return value


def _parts(split: object, images: int, source: str) -> dict[int, Part]:
    """Part of each position that the split names; empty where there is no split."""
    if split is None:
        return {}
    if not isinstance(split, Mapping):
        raise RefusedInputError(f"{source}: split is a {type(split).__name__}; write training, validation and test")
    parts: dict[int, Part] = {}
    for name, indices in split.items():
        if name not in PARTS:
            report.warning(f"{source}: the part '{name}' of its split is none of {', '.join(PARTS)}, and not used")
            continue
        for index in indices or ():
            if not isinstance(index, int) or not 0 <= index < images:
                raise RefusedInputError(f"{source}: split.{name} names image {index}; there are 0 to {images - 1}")
            if parts.setdefault(index, PARTS[name]) != PARTS[name]:
                raise RefusedInputError(f"{source}: image {index} is in two parts of the split; leave it in one")
    for name in ("training", "test"):
        if PARTS[name] not in parts.values():
            raise RefusedInputError(f"{source}: split.{name} is empty; fill it, or remove split to have it made")
    return parts


def _label(value: object, classes: tuple[str, ...], where: str) -> str:
    """The class: ECVL reads what can be a number as a position, and else as a name."""
    if isinstance(value, list):
        if len(value) != 1:
            raise RefusedInputError(f"{where} has {len(value)} labels; this job takes one class a picture")
        value = value[0]
    try:
        index = int(str(value))
    except ValueError:
        return str(value)
    if not 0 <= index < len(classes):
        raise RefusedInputError(f"{where}: the label is {index}; the classes are 0 to {len(classes) - 1}")
    return classes[index]


def _key(location: object, data: Store, folder: str, where: str) -> str:
    """A location as a key of the data store. Raises RefusedInputError for what does not lie in it."""
    if not isinstance(location, str) or not location:
        raise RefusedInputError(f"{where}: location is {location!r}; this job takes one file a picture")
    if "://" in location:
        raise RefusedInputError(f"{where}: {location} is elsewhere; fetch it, and write its path relative to the YAML")
    path = posixpath.relpath(location, data.root) if posixpath.isabs(location) else posixpath.join(folder, location)
    key = posixpath.normpath(path)
    if key.startswith(".."):
        raise RefusedInputError(f"{where}: {location} is not in {data.url}, which is all that workers read; move it")
    return key


def _lesion(values: object, features: Sequence[str], where: str) -> str | None:
    """The feature lesion_id of a picture: `values` is a list in the order of the features, or a mapping by feature."""
    if isinstance(values, Mapping):
        found = {str(name).lower(): value for name, value in values.items()}
    elif isinstance(values, list):
        if len(values) > len(features):
            raise RefusedInputError(f"{where} has {len(values)} values for {len(features)} features; name them all")
        found = dict(zip(features, values, strict=False))
    else:
        found = {}
    told = next((found[name] for name in LESION_COLUMNS if found.get(name) is not None), None)
    return None if told is None else str(told)
