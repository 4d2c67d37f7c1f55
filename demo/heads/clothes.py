"""Clothes, made by inflating the body's own surface below a neckline."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .geometry import Mesh, smoothstep, value_noise
from .shape import Head, Phenotype
from .template import Template

# Linear albedo of cloth.
CLOTH_COLOURS = {
    "white": (0.62, 0.61, 0.58),
    "light grey": (0.36, 0.36, 0.37),
    "charcoal": (0.045, 0.046, 0.05),
    "black": (0.02, 0.02, 0.024),
    "navy": (0.03, 0.05, 0.14),
    "blue": (0.12, 0.20, 0.33),
    "red": (0.27, 0.035, 0.035),
    "wine": (0.12, 0.02, 0.035),
    "green": (0.05, 0.13, 0.09),
    "olive": (0.13, 0.13, 0.06),
    "beige": (0.45, 0.38, 0.28),
    "rust": (0.33, 0.11, 0.04),
}

_NECKLINE = 0.612  # metres above the ground of the template, at the sides of the neck
_NECKLINE_DIP = 0.014  # how much lower it is in front, and higher behind
_LOWEST = 0.35  # no picture shows anything below this
_MARGIN = 0.010  # faces this far above the neckline are transparent cloth, so that their edges do not form its border
_EDGE = 0.0012  # distance over which the border fades, so that it does not follow the mesh's faces


class ClothKind(NamedTuple):
    """The shape of a neckline and of the cloth along it, in metres.

    `rise` lifts the neckline all around; `notch` lowers it in front, more narrowly with `sharpness`; a band of `band` metres
    below it stands off by `thickness` (ribbing, a roll, a collar); `folds` is the depth of the cloth's folds.
    """

    rise: float
    notch: float
    sharpness: int
    band: float
    thickness: float
    folds: float


CLOTH_KINDS = {
    "crew": ClothKind(rise=0.0, notch=0.0, sharpness=1, band=0.014, thickness=0.0014, folds=0.004),
    "v-neck": ClothKind(rise=0.004, notch=0.040, sharpness=6, band=0.010, thickness=0.0012, folds=0.004),
    "turtle": ClothKind(rise=0.016, notch=0.0, sharpness=1, band=0.036, thickness=0.0040, folds=0.004),
    "collar": ClothKind(rise=0.014, notch=0.034, sharpness=10, band=0.034, thickness=0.0055, folds=0.005),
}


@dataclass(frozen=True)
class ClothesTraits:
    """What a person wears: the kind by name, the linear albedo, and that of the band along the neckline."""

    kind: str
    colour: tuple[float, float, float]
    band_colour: tuple[float, float, float]


def sample_clothes(rng: np.random.Generator, phenotype: Phenotype) -> ClothesTraits:
    """Draw any kind in any colour.  V-necks are slightly more often worn by women, collars by men."""
    lean = 0.08 if phenotype.gender > 0.5 else -0.08
    kind = str(rng.choice(list(CLOTH_KINDS), p=[0.32, 0.22 + lean, 0.18, 0.28 - lean]))
    colour = _sample_colour(rng)
    two_coloured = rng.random() < 0.2
    band_colour = _sample_colour(rng) if two_coloured else colour
    return ClothesTraits(kind, colour, band_colour)


def _sample_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    name = list(CLOTH_COLOURS)[rng.integers(len(CLOTH_COLOURS))]
    return tuple(float(value) for value in np.clip(np.array(CLOTH_COLOURS[name]) * rng.uniform(0.75, 1.2), 0.01, 0.7))


def cloth_mesh(template: Template, head: Head, traits: ClothesTraits, rng: np.random.Generator) -> Mesh:
    """The cloth in head space, with colours and an opacity that fades out at the neckline."""
    kind = CLOTH_KINDS[traits.kind]
    points = template.mean_fine
    below = _metres_below_neckline(points, kind, rng)
    faces = _covered_faces(template, below)

    slack = 0.0035 + 0.006 * np.clip(below / 0.03, 0, 1)
    slack += kind.folds * np.clip(below / 0.02, 0, 1) * value_noise(points, 0.03, rng, octaves=2)
    on_band = smoothstep(kind.band + 0.002, kind.band - 0.002, below)
    slack += kind.thickness * on_band
    vertices = head.fine + head.fine_normals * slack[:, None]

    weave = 1 + 0.05 * value_noise(points, 0.012, rng, octaves=2) + rng.normal(0, 0.03, len(points))
    base, band = np.array(traits.colour), np.array(traits.band_colour)
    colours = (base + (band - base) * on_band[:, None]) * weave[:, None]
    opacity = np.clip(below / _EDGE + 0.5, 0, 1)
    return Mesh(vertices, faces, np.clip(colours, 0.005, 0.8).astype(np.float32), opacity.astype(np.float32))


def _metres_below_neckline(points: np.ndarray, kind: ClothKind, rng: np.random.Generator) -> np.ndarray:
    """How far points [n, 3] of the template are below the neckline, measured along y."""
    frontal = np.cos(np.arctan2(points[:, 0], points[:, 2] - 0.02))
    neckline = _NECKLINE - _NECKLINE_DIP * frontal + kind.rise - kind.notch * np.clip(frontal, 0, 1) ** kind.sharpness
    return neckline + 0.0015 * value_noise(points, 0.02, rng, octaves=1) - points[:, 1]


def _covered_faces(template: Template, below: np.ndarray) -> np.ndarray:
    """Faces of the skin that the cloth covers: those below the neckline, except the chin, which is below it in some heads."""
    points = template.mean_fine
    chin = (points[:, 2] > 0.088) & (points[:, 1] > 0.585)
    covered = (below > -_MARGIN) & ((template.regions["outer"] > 0.5) | (points[:, 1] < 0.64)) & ~chin
    faces = template.fine_faces
    return faces[covered[faces].all(axis=1) & (points[faces, 1].mean(axis=1) > _LOWEST)]
