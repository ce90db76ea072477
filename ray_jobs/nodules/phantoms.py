"""Generated chests for tests and demonstrations: no patients.

A phantom is a small block of chest: soft tissue around two lungs with a branching tree of vessels, and in it one to
three nodules. Nodules are roundish, solid or part-solid, and half of them hang on a vessel or on the wall, where a
threshold cannot tell them from it. Distractors are as bright and as thick as nodules, but drawn out (scars, ends of
vessels) or flat on the wall (plaques). So brightness and size say little, and the shape says nearly all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dhctl.ray_jobs.nodules.volume import Grid, Volume

WHAT_THEY_ARE = "generated phantoms, not patients"
"""What a result says of data made here."""

SIZE_MM = (96.0, 128.0, 150.0)
"""Extent of a phantom along (z, y, x): far smaller than a chest."""

AIR_HU, LUNG_HU, TISSUE_HU = -1000.0, -860.0, 40.0
NOISE_HU = 45.0
"""Standard deviation of the noise before it is smoothed."""

LUNG_CENTRES_MM = ((0.0, 0.0, -33.0), (0.0, 0.0, 33.0))
"""Relative to the middle of the phantom."""

LUNG_RADII_MM = (75.0, 46.0, 27.0)

Rng = np.random.Generator
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chest:
    """A rendered phantom."""

    volume: Volume
    lesions: NDArray[np.uint8]
    """Label of each voxel (z, y, x): 0, or the number of its nodule from 1 on."""


def render(rng: Rng, nodules: int) -> Chest:
    """A phantom with this many nodules; spacing, anatomy and distractors are drawn from `rng`."""
    canvas = _Canvas.blank(rng)
    _draw_body(canvas)
    twigs = _draw_vessels(canvas)
    for _ in range(rng.integers(3, 6)):
        _draw_scar(canvas)
    for _ in range(rng.integers(1, 4)):
        _draw_plaque(canvas)
    labels = np.zeros(canvas.grid.shape, dtype=np.uint8)
    for number in range(1, nodules + 1):
        _draw_nodule(canvas, twigs, labels, number)
    noise = ndimage.gaussian_filter(rng.normal(0, NOISE_HU, canvas.grid.shape), (0.0, 0.5, 0.5))
    hu = np.clip(canvas.hu + noise, -1024, 3071).round().astype(np.int16)
    return Chest(Volume(hu, canvas.grid), labels)


@dataclass
class _Canvas:
    """An array that shapes are painted into; positions are millimetres (z, y, x) from its first voxel."""

    hu: Floats
    grid: Grid
    lungs: NDArray[np.bool_]
    """Where the lungs are."""
    rng: Rng

    @classmethod
    def blank(cls, rng: Rng) -> _Canvas:
        in_plane = float(rng.uniform(1.4, 1.8))
        spacing = (float(rng.choice([2.0, 2.5, 3.0])), in_plane, in_plane)
        z, y, x = (round(size / step) for size, step in zip(SIZE_MM, spacing, strict=True))
        corner = (-SIZE_MM[2] / 2, -SIZE_MM[1] / 2, float(rng.uniform(-300, -100)))
        grid = Grid((z, y, x), spacing, corner, ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
        return cls(np.full(grid.shape, AIR_HU), grid, np.zeros(grid.shape, dtype=bool), rng)

    def mesh(self, centre: Floats, reach_mm: float) -> tuple[tuple[slice, ...], Floats]:
        """The box of voxels within reach of a point, and their offsets (3, z, y, x) from it in millimetres."""
        spacing = np.asarray(self.grid.spacing_mm)
        low = np.maximum(np.floor((centre - reach_mm) / spacing), 0).astype(int)
        high = np.minimum(np.ceil((centre + reach_mm) / spacing) + 1, self.grid.shape).astype(int)
        box = tuple(slice(start, max(start, stop)) for start, stop in zip(low, high, strict=True))
        axes = np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij")
        return box, np.stack(axes) * spacing[:, None, None, None] - centre[:, None, None, None]

    def paint(self, centre: Floats, radii_mm: Floats, turn: Floats, hu: float) -> tuple[tuple[slice, ...], Floats]:
        """An ellipsoid with axes `turn` (rows, unit vectors); returns its box and its share of each voxel there."""
        box, offsets = self.mesh(centre, float(radii_mm.max()) + 2 * max(self.grid.spacing_mm))
        local = np.tensordot(turn, offsets, axes=1) / radii_mm[:, None, None, None]
        # Distance to the surface in millimetres, exact for a sphere, near enough for the others.
        outside = (np.sqrt((local**2).sum(axis=0)) - 1) * float(radii_mm.min())
        share = np.clip(0.5 - outside / float(np.mean(self.grid.spacing_mm)), 0, 1)
        here = self.hu[box]
        self.hu[box] = np.maximum(here, here * (1 - share) + hu * share)
        return box, share


def _draw_body(canvas: _Canvas) -> None:
    """Soft tissue with two lungs."""
    spacing = np.asarray(canvas.grid.spacing_mm)
    box, offsets = canvas.mesh(np.asarray(SIZE_MM) / 2, max(SIZE_MM))
    body = (offsets[1] / 61) ** 2 + (offsets[2] / 72) ** 2 < 1
    canvas.hu[body] = TISSUE_HU
    for centre in LUNG_CENTRES_MM:
        radii = np.asarray(LUNG_RADII_MM) * canvas.rng.uniform(0.92, 1.0, 3)
        away = offsets - np.asarray(centre)[:, None, None, None]
        canvas.lungs[box] |= ((away / radii[:, None, None, None]) ** 2).sum(axis=0) < 1
    texture = ndimage.gaussian_filter(canvas.rng.normal(size=canvas.hu.shape), 6.0 / spacing)
    canvas.hu[canvas.lungs] = (LUNG_HU + 25 * texture / texture.std())[canvas.lungs]


def _draw_vessels(canvas: _Canvas) -> list[Floats]:
    """A tree from the inner side of each lung outwards; returns points along its thinner branches."""
    middle, rng = np.asarray(SIZE_MM) / 2, canvas.rng
    twigs: list[Floats] = []
    for centre in LUNG_CENTRES_MM:
        root = middle + np.asarray(centre) * np.array([1, 1, 0.35])
        for _ in range(9):
            at = root + rng.normal(0, 4, 3) * (3, 1, 0.3)
            _grow(canvas, at, _unit(rng), float(rng.uniform(2.2, 3.4)), twigs)
    return twigs


def _grow(canvas: _Canvas, at: Floats, heading: Floats, radius_mm: float, twigs: list[Floats]) -> None:
    """One branch with its side branches, until it leaves the phantom or is thinner than a voxel."""
    rng = canvas.rng
    hu = float(rng.uniform(0, 60))
    at = at.copy()
    while radius_mm > 0.8:
        heading = heading + rng.normal(0, 0.16, 3)
        heading /= np.linalg.norm(heading)
        at += heading * max(1.0, radius_mm * 0.8)
        index = tuple((at / canvas.grid.spacing_mm).round().astype(int))
        if not all(0 <= i < n for i, n in zip(index, canvas.lungs.shape, strict=True)):
            return
        if canvas.lungs[index]:
            canvas.paint(at, np.full(3, radius_mm), np.eye(3), hu)
            if radius_mm < 2.2:
                twigs.append(at.copy())
        radius_mm *= 0.982
        if radius_mm > 1.2 and rng.random() < 0.07:
            _grow(canvas, at, heading + 0.9 * _unit(rng), radius_mm * float(rng.uniform(0.65, 0.85)), twigs)


def _draw_scar(canvas: _Canvas) -> None:
    """As bright and as thick as a nodule, but two and a half to four times as long as thick."""
    rng = canvas.rng
    thick = float(rng.uniform(2.2, 4.2))
    radii = np.array([thick, thick * rng.uniform(0.85, 1.15), thick * rng.uniform(2.5, 4.0)])
    canvas.paint(_place_in_lung(canvas), radii, _turn(rng), float(rng.uniform(-60, 80)))


def _draw_plaque(canvas: _Canvas) -> None:
    """Flat on the wall of a lung."""
    rng = canvas.rng
    at, outward = _place_on_wall(canvas)
    side = np.cross(outward, _unit(rng))
    side /= np.linalg.norm(side)
    turn = np.stack([outward, side, np.cross(outward, side)])
    radii = np.array([rng.uniform(2.0, 3.0), rng.uniform(7, 11), rng.uniform(7, 11)])
    canvas.paint(at, radii, turn, float(rng.uniform(-20, 90)))


def _draw_nodule(canvas: _Canvas, twigs: list[Floats], labels: NDArray[np.uint8], number: int) -> None:
    """A nodule of 6 to 13 mm, free, on a vessel or on the wall, clear of earlier ones."""
    rng = canvas.rng
    for _ in range(50):
        radius = float(rng.uniform(3.0, 6.5))
        kind = rng.random()
        if kind < 0.3 and twigs:
            at = twigs[int(rng.integers(len(twigs)))] + radius * 0.7 * _unit(rng)
        elif kind < 0.5:
            wall, outward = _place_on_wall(canvas)
            at = wall - outward * radius * 0.75
        else:
            at = _place_in_lung(canvas)
        box, _ = canvas.mesh(at, radius + 8)
        if not labels[box].any() and canvas.lungs[box].any():
            break
    solid = rng.random() < 0.75
    hu = float(rng.uniform(-60, 80) if solid else rng.uniform(-520, -300))
    box, share = canvas.paint(at, radius * rng.uniform(0.87, 1.13, 3), _turn(rng), hu)
    labels[box][(share > 0.5) & canvas.lungs[box]] = number


def _place_in_lung(canvas: _Canvas) -> Floats:
    where = int(canvas.rng.choice(np.flatnonzero(canvas.lungs)))
    index = np.asarray(np.unravel_index(where, canvas.lungs.shape))
    at: Floats = index * np.asarray(canvas.grid.spacing_mm)
    return at


def _place_on_wall(canvas: _Canvas) -> tuple[Floats, Floats]:
    """A point on the side of a lung, and the direction out of the lung there."""
    rng = canvas.rng
    centre = np.asarray(SIZE_MM) / 2 + np.asarray(LUNG_CENTRES_MM[int(rng.integers(2))])
    angle = float(rng.uniform(0, 2 * np.pi))
    outward = np.array([0.0, np.sin(angle), np.cos(angle)])
    at = centre + np.array([float(rng.uniform(-0.3, 0.3)) * SIZE_MM[0], 0, 0])
    last = np.asarray(canvas.lungs.shape) - 1
    while canvas.lungs[tuple((at / canvas.grid.spacing_mm).round().astype(int).clip(0, last))]:
        at = at + outward
    return at, outward


def _unit(rng: Rng) -> Floats:
    vector = rng.normal(size=3)
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _turn(rng: Rng) -> Floats:
    """A random rotation."""
    rotation: Floats = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation
