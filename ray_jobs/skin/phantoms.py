"""Generated pictures in the formats that groups have: JPEG, tables in ISIC's columns, and the dataset YAML of ECVL."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from PIL import Image

from dhctl.ray_jobs.pipeline.split import split_by_group
from dhctl.ray_jobs.skin.drawing import STRUCTURES, draw
from dhctl.ray_jobs.skin.ecvl import PARTS as ECVL_PARTS
from dhctl.ray_jobs.skin.settings import WHAT_PHANTOMS_ARE, Settings
from dhctl.ray_jobs.storage import Store

FOLDER = "ISIC_phantom_Input"
LABELS = "ISIC_phantom_GroundTruth.csv"
LESIONS = "ISIC_phantom_Metadata.csv"
DATASET = "isic_phantom.yml"
"""Written last: it marks the folder as complete."""

SHARES = {"MEL": 0.16, "NV": 0.34, "BCC": 0.12, "AKIEC": 0.09, "BKL": 0.14, "DF": 0.07, "VASC": 0.08}
"""Shares of the classes among lesions: the order of ISIC 2018, less extreme, so that a small set can be scored."""

NAMED_BY = ("seed", "phantom_lesions", "validation_share", "test_share")
"""Settings that change the phantoms: the split is written into the YAML."""


@dataclass(frozen=True)
class Phantom:
    """One picture to generate."""

    name: str
    label: str
    lesion: str
    seed: int
    lesion_index: int
    view: int
    """Which picture of its lesion."""


@dataclass(frozen=True)
class PhantomTask:
    """A phantom and the folder it goes to."""

    phantom: Phantom
    store: Store


def plan_phantoms(settings: Settings) -> list[Phantom]:
    """All pictures: lesions of the classes in their shares, in a seeded order, with one to three pictures each."""
    rng = np.random.default_rng([settings.seed, settings.phantom_lesions])
    ends = np.round(np.cumsum(list(SHARES.values())) * settings.phantom_lesions).astype(int)
    labels = np.repeat(list(SHARES), np.diff(ends, prepend=0))
    planned: list[Phantom] = []
    for index, label in enumerate(rng.permutation(labels)):
        for view in range(int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))):
            name = f"ISIC_{9_000_000 + len(planned)}"
            planned.append(Phantom(name, str(label), f"PHANTOM_{index:05d}", settings.seed, index, view))
    return planned


def write_phantom(task: PhantomTask) -> str:
    """Generate one picture into its store; returns its key."""
    phantom = task.phantom
    lesion = np.random.default_rng([phantom.seed, phantom.lesion_index])
    view = np.random.default_rng([phantom.seed, phantom.lesion_index, 1 + phantom.view])
    content = io.BytesIO()
    Image.fromarray(draw(phantom.label, lesion, view)).save(content, "JPEG", quality=90)
    task.store.write(picture_key(phantom), content.getvalue())
    return picture_key(phantom)


def picture_key(phantom: Phantom) -> str:
    """Where the picture lies in its store."""
    return f"{FOLDER}/{phantom.name}.jpg"


def write_descriptions(store: Store, phantoms: Sequence[Phantom], settings: Settings) -> None:
    """Write the tables of ISIC and the dataset YAML; both describe the same set, the YAML with a split by lesion."""
    classes = list(STRUCTURES)
    store.write(
        LABELS,
        _csv(["image", *classes], [[p.name, *(float(p.label == name) for name in classes)] for p in phantoms]),
    )
    store.write(LESIONS, _csv(["image", "lesion_id"], [[p.name, p.lesion] for p in phantoms]))
    strata = {p.lesion: classes.index(p.label) for p in phantoms}
    parts = split_by_group(strata, settings.validation_share, settings.test_share, settings.seed, "lesion")
    split = {
        name: [index for index, p in enumerate(phantoms) if parts[p.lesion] == part]
        for name, part in ECVL_PARTS.items()
    }
    tree = {
        "name": "isic_phantom",
        "description": f"Dermoscopic pictures of skin lesions: {WHAT_PHANTOMS_ARE}",
        "classes": classes,
        "features": ["lesion_id"],
        "images": [{"location": picture_key(p), "label": p.label, "values": [p.lesion]} for p in phantoms],
        "split": split,
    }
    store.write(DATASET, yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None).encode())


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()
