"""How a generated lesion looks: skin, an outline, and for each class a structure of its own.

Structures follow the words of dermoscopy (Kittler et al., "Standardization of terminology in dermoscopy", JAAD 2016):
network, blotches, nests, vessels, scales, cysts, scar, lacunae. They are drawn from shapes and smooth noise. The mean
colour of a picture is set at random, with only a slight lean by class: structure says what the lesion is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIZE_PX = (120, 160)
"""Height and width of a picture."""

Field = NDArray[np.float64]

BROWN, BLUE, RED, WHITE = (
    np.array(c, dtype=float) for c in ((-70, -75, -70), (-80, -60, -25), (10, -70, -65), (35, 45, 50))
)
"""What pigment, deep pigment, blood and keratin add to the skin's red, green and blue."""

LEAN = {"MEL": (-9, -9, -5), "VASC": (8, -7, -4), "BKL": (0, 0, -7), "AKIEC": (6, 2, 2)}
"""What the mean colour of a class differs by; other differences between pictures are three times as large."""

SPREAD = 20.0
"""Standard deviation of the mean colour between pictures, 0 to 255."""


STRENGTH = (0.4, 0.9)
"""How clear the structure of a lesion is, from the faintest to the clearest."""

OTHER_COVER = (0.0, 0.4)
"""Share of a lesion that shows the structure of some other class: few lesions are of the textbook's kind."""

TINT = (0.6, 1.4)
"""By how much a lesion's own colours are stronger or weaker, channel by channel."""


@dataclass(frozen=True)
class Canvas:
    """Coordinates relative to the lesion, and the random numbers of the picture."""

    rng: np.random.Generator
    radius: Field
    """Distance from the lesion's middle, 1 on its outline."""
    angle: Field
    size_px: float
    """Mean radius of the lesion."""

    def noise(self, scale_px: float) -> Field:
        """Smooth noise with mean 0 and deviation 1."""
        found: Field = ndimage.gaussian_filter(self.rng.normal(size=SIZE_PX), scale_px)
        normal: Field = (found - found.mean()) / found.std()
        return normal

    def spots(self, count: int, radius_px: float, inside: float) -> Field:
        """Round spots of value 1 with soft edges, their middles evenly spread within `inside` of the outline."""
        rows, columns = np.nonzero(self.radius < inside)
        free = np.ones(SIZE_PX, dtype=bool)
        if len(rows):
            chosen = self.rng.choice(len(rows), min(count, len(rows)), replace=False)
            free[rows[chosen], columns[chosen]] = False
        distance: Field = ndimage.distance_transform_edt(free)
        return np.clip(radius_px + 0.5 - distance, 0, 1)

    def lines(self, scale_px: float, width: float) -> Field:
        """Thin winding lines: where smooth noise passes through zero."""
        found: Field = np.exp(-((self.noise(scale_px) / width) ** 2))
        return found


def draw(label: str, lesion: np.random.Generator, view: np.random.Generator) -> NDArray[np.uint8]:
    """A picture, RGB of SIZE_PX, of a lesion of this class.

    `lesion` draws what all pictures of the lesion share (shape and structure), `view` what differs: place, turn, light,
    hairs and the dark rim of the instrument.
    """
    irregular = lesion.uniform(0.12, 0.3) if label == "MEL" else lesion.uniform(0.03, 0.18)
    strength, cover = lesion.uniform(*STRENGTH), lesion.uniform(*OTHER_COVER)
    other, tint = str(lesion.choice(list(STRUCTURES))), lesion.uniform(*TINT, 3)
    canvas = _canvas(lesion, view, irregular)
    body = np.clip((1.02 - canvas.radius) * canvas.size_px / 4, 0, 1)
    patches = canvas.noise(10)
    elsewhere = patches < np.quantile(patches, cover)
    structure = np.where(elsewhere[..., None], STRUCTURES[other](canvas), STRUCTURES[label](canvas))
    change = structure * body[..., None] * tint * strength
    skin = 3.5 * canvas.noise(1.0)[..., None] + 5 * canvas.noise(20)[..., None]
    picture = np.array((205.0, 165.0, 145.0)) + skin + change
    # Hairs and the mean (of the square that prepare cuts) come last, so that neither tells the class.
    lean = np.array(LEAN.get(label, (0, 0, 0)))
    wanted = np.array((175.0, 135.0, 120.0)) + lean + view.normal(0, SPREAD) + view.normal(0, SPREAD / 3, 3)
    side = (SIZE_PX[1] - SIZE_PX[0]) // 2
    picture += wanted - picture[:, side:-side].mean(axis=(0, 1))
    _draw_hairs(picture, view)
    if view.random() < 0.3:
        _draw_vignette(picture, view)
    return picture.clip(0, 255).astype(np.uint8)


def _canvas(lesion: np.random.Generator, view: np.random.Generator, irregular: float) -> Canvas:
    size = lesion.uniform(30, 42)
    middle = np.array(SIZE_PX) / 2 + view.uniform(-7, 7, 2)
    y, x = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]]
    turn = view.uniform(0, 2 * np.pi)
    angle = np.arctan2(y - middle[0], x - middle[1]) + turn
    outline = np.ones(SIZE_PX)
    for wave in range(2, 7):
        outline += irregular * lesion.normal(0, 1) / wave**0.7 * np.cos(wave * angle + lesion.uniform(0, 6.3))
    radius = np.hypot(y - middle[0], x - middle[1]) / (size * np.clip(outline, 0.45, 1.7))
    # Structures are drawn anew for each picture from the lesion's generator: alike in kind, not in each pixel.
    return Canvas(np.random.default_rng([int(lesion.integers(2**31)), int(view.integers(2**31))]), radius, angle, size)


def _paint(amount: Field, colour: Field) -> Field:
    """An amount (h, w) of a colour (3,) as a change of a picture (h, w, 3)."""
    change: Field = amount[..., None] * colour
    return change


def _naevus(canvas: Canvas) -> Field:
    """An even brown with a regular network, fading to the edge."""
    y, x = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]]
    pitch, turn = canvas.rng.uniform(9, 11), canvas.rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    u, v = u + 1.2 * canvas.noise(8), v + 1.2 * canvas.noise(8)
    network = np.maximum(np.cos(2 * np.pi * u / pitch), np.cos(2 * np.pi * v / pitch)) ** 3
    return _paint(0.45 + 0.55 * np.clip(network, 0, 1), BROWN)


def _melanoma(canvas: Canvas) -> Field:
    """Blotches of different darkness and colour without order."""
    dark, deep = canvas.noise(8), canvas.noise(8)
    blue = np.where(deep > 0.6, 1.1, 0)
    return _paint(blue, BLUE) + _paint(np.where(blue, 0, np.clip(0.7 + 0.6 * dark, 0.15, 1.5)), BROWN)


def _basal_cell(canvas: Canvas) -> Field:
    """Pale, with a few large blue nests and branching vessels."""
    nests = canvas.spots(int(canvas.rng.integers(4, 7)), 6.5, 0.8)
    vessels = canvas.lines(7, 0.12)
    return _paint(1.2 * nests, BLUE) + _paint(0.8 * vessels * (1 - nests), RED) + 0.2 * WHITE


def _keratosis_actinic(canvas: Canvas) -> Field:
    """Red with ragged white scales."""
    scales = np.clip(1.6 * canvas.noise(2.2) - 0.7, 0, 1)
    return _paint(scales, WHITE) + _paint(0.55 - 0.4 * scales, RED)


def _keratosis_benign(canvas: Canvas) -> Field:
    """Brown with a sharp edge and many small bright cysts."""
    cysts = canvas.spots(int(canvas.rng.integers(20, 32)), 2.2, 0.92)
    return _paint(cysts, WHITE) + _paint(0.75 * (1 - cysts), BROWN)


def _fibroma(canvas: Canvas) -> Field:
    """A white scar in the middle, a brown ring around it."""
    ring = np.exp(-(((canvas.radius - 0.75) / 0.2) ** 2))
    scar = np.clip((0.5 - canvas.radius) * 6, 0, 1)
    return _paint(ring, BROWN) + _paint(scar, WHITE)


def _vascular(canvas: Canvas) -> Field:
    """Many round red lacunae, close together."""
    lacunae = canvas.spots(int(canvas.rng.integers(11, 17)), 4.2, 0.9)
    return _paint(0.15 + 1.3 * lacunae, RED)


STRUCTURES: dict[str, Callable[[Canvas], Field]] = {
    "MEL": _melanoma,
    "NV": _naevus,
    "BCC": _basal_cell,
    "AKIEC": _keratosis_actinic,
    "BKL": _keratosis_benign,
    "DF": _fibroma,
    "VASC": _vascular,
}
"""What each class looks like; the classes are those of ISIC 2018, task 3, in its order."""


def _draw_hairs(picture: Field, rng: np.random.Generator) -> None:
    """Some dark curved hairs across the picture, in place."""
    along = np.linspace(-110, 110, 440)
    for _ in range(int(rng.integers(0, 7))):
        turn, bend = rng.uniform(0, np.pi), rng.uniform(-0.004, 0.004)
        across = rng.uniform(-60, 60) + bend * along**2
        y = (SIZE_PX[0] / 2 + along * np.sin(turn) + across * np.cos(turn)).round().astype(int)
        x = (SIZE_PX[1] / 2 + along * np.cos(turn) - across * np.sin(turn)).round().astype(int)
        inside = (y >= 0) & (y < SIZE_PX[0]) & (x >= 0) & (x < SIZE_PX[1])
        picture[y[inside], x[inside]] *= 0.35


def _draw_vignette(picture: Field, rng: np.random.Generator) -> None:
    """The dark rim that a dermatoscope leaves around its round field of view, in place."""
    y, x = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]]
    distance = np.hypot(y - SIZE_PX[0] / 2, x - SIZE_PX[1] / 2)
    picture *= np.clip((rng.uniform(76, 96) - distance) / 3, 0.05, 1)[..., None]
