"""Writing the files of a new job into a folder of its own."""

from __future__ import annotations

import math
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dhctl.infra.errors import RefusedError, UsageError
from dhctl.infra.home import storage_errors
from dhctl.infra.spec_base import NAME_PATTERN
from dhctl.ray_jobs.catalog import JOBS

HERE = Path(__file__).parent
FILES: Mapping[str, str] = {
    "spec.yaml.j2": "{name}.yaml",
    "main.py.j2": "job/main.py",
    "task.py.j2": "job/task.py",
    "test_job.py.j2": "test_job.py",
    "README.md.j2": "README.md",
    "gitignore.j2": ".gitignore",
}
"""Templates, and where in the job's folder their files go."""

PATIENTS, SAMPLES_EACH = 24, 10


def new_job(name: str, folder: Path) -> Path:
    """Makes the folder `folder`/`name` with all files of a job; where it is.

    Raises UsageError for a name that a run cannot bear, RefusedError where something lies there or nothing can be
    written. Then nothing is left.
    """
    _check(name)
    place = folder.expanduser().absolute() / name
    if place.exists() or place.is_symlink():
        raise RefusedError(f"{place} is there already", "choose another name, or another --folder")
    with storage_errors(folder, RefusedError):
        try:
            place.mkdir(parents=True)
            _fill(place, name)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return place


def _check(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        told = "use small letters, digits and dashes, at most 40 characters, the first a letter"
        raise UsageError(f"{name!r} is no name of a job", told)
    if name in JOBS:
        raise UsageError(f"{name} is the name of a job that comes with dhctl", "choose another one")


def _fill(place: Path, name: str) -> None:
    # the files are Python, YAML and Markdown, and the name that is put in is checked: nothing is to be escaped
    templates = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    for template, target in FILES.items():
        path = place / target.format(name=name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(templates.get_template(template).render(name=name))
    (place / "data").mkdir()
    (place / "data" / "samples.csv").write_text(sample_table())


def sample_table() -> str:
    """Two half moons that reach into each other, as rows of patients: no straight line divides them."""
    drawn = random.Random(1)
    rows = ["patient,x,y,label"]
    for patient in range(PATIENTS):
        for _ in range(SAMPLES_EACH):
            label, angle = drawn.randrange(2), drawn.uniform(0, math.pi)
            x = 1 - math.cos(angle) if label else math.cos(angle)
            y = 0.5 - math.sin(angle) if label else math.sin(angle)
            rows.append(f"p{patient:02d},{x + drawn.gauss(0, 0.1):.4f},{y + drawn.gauss(0, 0.1):.4f},{label}")
    return "\n".join(rows) + "\n"
