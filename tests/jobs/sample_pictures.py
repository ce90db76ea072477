"""Small sets of pictures that the tests of the skin job share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dhctl.ray_jobs.skin.settings import Settings, settings_from

CLASSES = ("MEL", "NV", "BCC")


def quick_settings(**changes: object) -> Settings:
    """The tiny profile made smaller still."""
    small = {"epochs": 2, "draws_per_epoch": 1, "store_px": 36, "input_px": 32, "shard_images": 8}
    return settings_from({"validation_share": 0.2, "test_share": 0.2, **small, **changes})


def write_picture(path: Path, label: int = 0, seed: int = 0) -> None:
    """A JPEG whose stripes, not its colour, follow the class."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(90, 150, (48, 64, 3)) + rng.integers(0, 40, 3)
    picture[:: 2 + 2 * label] += 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.astype(np.uint8)).save(path, quality=95)


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """A CSV file of these rows, the first of which names the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_isic(folder: Path, lesions: int = 18) -> None:
    """A data folder in the layout of ISIC 2019: every third lesion has two pictures."""
    labels, groups = [["image", *CLASSES]], [["image", "lesion_id"]]
    for lesion in range(lesions):
        for view in range(2 if lesion % 3 == 2 else 1):
            name, label = f"ISIC_{lesion:04d}{view}", (lesion // 3) % 3
            write_picture(folder / "ISIC_Input" / f"{name}.jpg", label, seed=10 * lesion + view)
            labels.append([name, *(str(float(label == each)) for each in range(3))])
            groups.append([name, f"L{lesion}"])
    write_csv(folder / "ISIC_GroundTruth.csv", labels)
    write_csv(folder / "ISIC_Metadata.csv", groups)


def dataset(**changes: Any) -> dict[str, Any]:
    """An ECVL dataset of twelve pictures, each of a lesion of its own, with a split."""
    found = {
        "name": "set",
        "description": "a test",
        "classes": list(CLASSES),
        "features": ["age", "lesion_id"],
        "images": [
            {"location": f"pictures/p{n:02d}.jpg", "label": CLASSES[n % 3], "values": [50, f"L{n}"]} for n in range(12)
        ],
        "split": {"training": [*range(6)], "validation": [6, 7, 8], "test": [9, 10, 11]},
    }
    return {**found, **changes}


def write_ecvl(folder: Path, tree: object) -> None:
    """A data folder with this dataset YAML in a subfolder, and twelve pictures beside it."""
    for n in range(12):
        write_picture(folder / "set/pictures" / f"p{n:02d}.jpg", n % 3, seed=n)
    (folder / "set/isic.yml").write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
