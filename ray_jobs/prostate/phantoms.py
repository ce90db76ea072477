"""Generated slides for tests and demonstrations: real files with real stain texture, but no patients.

A phantom is a strip of tissue like a needle biopsy. Its glands (pale lumen, dark rim) lie on a jittered lattice whose
pitch falls with the grade, so that a higher grade has smaller and denser glands. Lumen, rim and stroma keep their share
of the area at every pitch, and each slide's mean stain is drawn without regard to its grade: the mean colour says
nothing, the structure says all. Only part of a slide shows its grade; the rest is benign, as in a biopsy. The fine
texture comes from the immunohistochemistry sample that ships inside scikit-image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.data import immunohistochemistry

from dhctl.ray_jobs.prostate.labels import Case
from dhctl.ray_jobs.prostate.pyramids import pyramid
from dhctl.ray_jobs.prostate.settings import GRADES
from dhctl.ray_jobs.storage import Store

UM_PER_PX = 1.0
"""Resolution of level 0."""

SIZE_PX = (384, 1024)
"""Height and width of level 0."""

PITCH_UM = (64.0, 52.0, 42.0, 34.0, 27.0, 21.0)
"""Distance between glands for ISUP grades 0 to 5; neighbours overlap through a slide's own factor."""

_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
_EOSIN = np.array([0.07, 0.99, 0.11])
"""Optical density of the stains per channel: Ruifrok & Johnston, Anal Quant Cytol Histol 2001."""


@dataclass(frozen=True)
class Phantom:
    """One slide to generate."""

    case: Case
    seed: int
    index: int


@dataclass(frozen=True)
class PhantomTask:
    """A phantom and the folder it goes to."""

    phantom: Phantom
    store: Store


def plan_phantoms(patients: int, seed: int) -> list[Phantom]:
    """Who has which grade: equally many patients of each; every third patient has a second slide of the same grade.

    Those third patients have only two of the six grades, so among slides these two are twice as frequent.
    """
    planned: list[Phantom] = []
    for patient in range(patients):
        grade = (patient + seed) % GRADES
        for slide in range(2 if patient % 3 == 2 else 1):
            case = Case(f"phantom-{patient:03d}-{slide}", f"patient-{patient:03d}", grade)
            planned.append(Phantom(case, seed, len(planned)))
    return planned


def write_phantom(task: PhantomTask) -> str:
    """Generate one slide into its store; returns its key."""
    rng = np.random.default_rng([task.phantom.seed, task.phantom.index])
    key = f"{task.phantom.case.slide}.tiff"
    task.store.write(key, pyramid(render(task.phantom.case.grade, rng), UM_PER_PX))
    return key


def write_table(store: Store, phantoms: Sequence[Phantom]) -> None:
    """Write train.csv in PANDA's columns and with a patient_id; it is written last and marks the folder as complete."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image_id", "data_provider", "isup_grade", "gleason_score", "patient_id"])
    table.writerows([p.case.slide, "phantom", p.case.grade, "", p.case.patient] for p in phantoms)
    store.write("train.csv", text.getvalue().encode())


def render(grade: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Level 0 of a slide of this grade (0 to 5), RGB of SIZE_PX."""
    own_factor = float(np.exp(rng.normal(0, 0.06)))
    tumour = _smooth_noise(rng, 90) < rng.uniform(0.55, 0.9)
    benign = _glands(rng, PITCH_UM[0] * own_factor)
    graded = _glands(rng, PITCH_UM[grade] * own_factor)
    density = np.where(tumour, graded, benign) + 0.22 * _texture(rng)
    tissue = _strip(rng)
    # The mean over the tissue is set, not left to the pattern: colour must not give the grade away.
    density = np.clip(density - density[tissue].mean() + rng.uniform(0.3, 0.5), 0.02, None)
    eosin = np.clip(rng.uniform(0.25, 0.5) + 0.1 * _smooth_noise(rng, 30), 0.05, None)
    optical = density[..., None] * _HAEMATOXYLIN + eosin[..., None] * _EOSIN
    rgb = np.where(tissue[..., None], 245 * 10.0 ** -optical.clip(0, 2), 243.0)
    if rng.random() < 0.15:
        _draw_pen(rgb, rng)
    return rgb.clip(0, 255).astype(np.uint8)


def _glands(rng: np.random.Generator, pitch_um: float) -> NDArray[np.float64]:
    """Stain density of glands on a jittered lattice: 0.1 in the lumen, 1.1 in the rim, 0.45 between."""
    # At half resolution: the distance transform is the cost of a slide, and edges are blurred anyway.
    height, width = SIZE_PX[0] // 2, SIZE_PX[1] // 2
    pitch = pitch_um / UM_PER_PX / 2
    rows, columns = np.meshgrid(np.arange(0, height + pitch, pitch), np.arange(0, width + pitch, pitch), indexing="ij")
    jitter = rng.uniform(-0.22, 0.22, (2, *rows.shape)) * pitch
    y = (rows + jitter[0]).round().astype(int).clip(0, height - 1)
    x = (columns + jitter[1]).round().astype(int).clip(0, width - 1)
    free = np.ones((height, width), dtype=bool)
    free[y, x] = False
    distance = ndimage.distance_transform_edt(free) / pitch
    pattern = np.select([distance < 0.2, distance < 0.36], [0.1, 1.1], 0.45)
    fine: NDArray[np.float64] = np.kron(ndimage.gaussian_filter(pattern, 0.6), np.ones((2, 2)))
    return fine


@cache
def _sample_texture() -> NDArray[np.float64]:
    """Fine structure of the sample picture (512, 512): dark is positive, mean 0, deviation 1."""
    grey = 1 - immunohistochemistry().mean(axis=-1) / 255
    fine = grey - ndimage.gaussian_filter(grey, 12)
    texture: NDArray[np.float64] = (fine - fine.mean()) / fine.std()
    return texture


def _texture(rng: np.random.Generator) -> NDArray[np.float64]:
    sample = np.rot90(_sample_texture(), int(rng.integers(4)))
    mirrored = np.block([[sample, sample[:, ::-1]], [sample[::-1], sample[::-1, ::-1]]])
    top, left = rng.integers(0, 1024, 2)
    rolled: NDArray[np.float64] = np.roll(mirrored, (top, left), axis=(0, 1))[: SIZE_PX[0], : SIZE_PX[1]]
    return rolled


def _smooth_noise(rng: np.random.Generator, scale_px: float) -> NDArray[np.float64]:
    """Smooth noise, uniform in rank: values from 0 to 1, each share of the area equally often."""
    step = 8
    coarse = ndimage.gaussian_filter(rng.normal(size=(SIZE_PX[0] // step, SIZE_PX[1] // step)), scale_px / step)
    ranks = coarse.ravel().argsort().argsort().reshape(coarse.shape) / coarse.size
    fine: NDArray[np.float64] = np.kron(ranks, np.ones((step, step)))
    return fine


def _strip(rng: np.random.Generator) -> NDArray[np.bool_]:
    """The outline of the tissue: a strip with wavy edges and free ends."""
    y, x = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]]
    wave = 18 * np.sin(x / rng.uniform(60, 140) + rng.uniform(0, 6)) + 6 * np.sin(x / 17 + rng.uniform(0, 6))
    half = rng.uniform(120, 150)
    inside: NDArray[np.bool_] = (np.abs(y - SIZE_PX[0] / 2 - wave) < half) & (x > 30) & (x < SIZE_PX[1] - 30)
    return inside


def _draw_pen(rgb: NDArray[np.float64], rng: np.random.Generator) -> None:
    """A stroke of a green or blue marker across one end, in place."""
    left = int(rng.integers(60, 200))
    rgb[:, left : left + 24] = (20, 140, 60) if rng.random() < 0.5 else (30, 60, 190)
