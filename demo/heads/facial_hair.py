"""Brows and beards: one person's traits, and their strands."""

from dataclasses import dataclass

import numpy as np

from .geometry import smoothstep, tangential, unit
from .hair_strands import Strands, tapered
from .hair_styles import HairTraits
from .template import sample_roots

_BROW_POINTS, _BEARD_POINTS = 5, 6
_BROW_RADIUS, _BEARD_RADIUS = 0.00011, 0.00019
_INNER_BROW, _BROW_SPAN = 0.012, 0.045  # metres from the middle plane to a brow's inner end, and its length along x


@dataclass(frozen=True)
class BeardKind:
    """A kind of beard: strands over the whole region of the beard, their length in metres, how dark the skin under them is,
    and the probability that a man wears it.
    """

    strands: int
    length: float
    shadow: float
    chance: float


BEARDS = {
    "none": BeardKind(0, 0, 0, 0.36),
    "shadow": BeardKind(0, 0, 0.22, 0.20),
    "stubble": BeardKind(4_500, 0.0015, 0.35, 0.16),
    "short": BeardKind(6_000, 0.006, 0.5, 0.10),
    "full": BeardKind(6_500, 0.013, 0.6, 0.08),
    "moustache": BeardKind(6_500, 0.008, 0.5, 0.04),
    "goatee": BeardKind(6_500, 0.010, 0.55, 0.06),
}


@dataclass(frozen=True)
class FacialHairTraits:
    """One person's brows and beard.  Factors multiply the default number."""

    beard: str  # a key of BEARDS
    beard_length: float  # factor
    beard_grey: float  # 0..1: how much greyer the beard is than the hair
    brow_density: float  # share of the template's brow roots that carry a strand
    brow_length: float  # factor


def sample_facial_hair(rng: np.random.Generator, phenotype) -> FacialHairTraits:
    """Draw brows and beard for a phenotype (fields gender 0 man … 1 woman, age)."""
    chances = np.array([kind.chance for kind in BEARDS.values()])
    beard = str(rng.choice(list(BEARDS), p=chances / chances.sum()))
    years = float(smoothstep(0.68, 0.98, phenotype.age))
    womanly = phenotype.gender > 0.5
    return FacialHairTraits(
        beard=beard if phenotype.gender < 0.45 else "none",
        beard_length=float(rng.uniform(0.7, 1.3)),
        beard_grey=float(years * rng.uniform(0, 1)),
        brow_density=float(rng.uniform(0.30, 0.75) if womanly else rng.uniform(0.45, 0.95)),
        brow_length=float(rng.uniform(0.85, 1.05) if womanly else rng.uniform(0.9, 1.2)),
    )


def brow_colour(hair: HairTraits) -> np.ndarray:
    """Linear albedo [3] of the brows: slightly darker than dark hair, much darker than light hair."""
    colour = np.array(hair.colour)
    return np.clip(colour * (0.8 if colour.mean() < 0.15 else 0.45), 0.004, 0.9)


def beard_colour(traits: FacialHairTraits, hair: HairTraits) -> np.ndarray:
    """Linear albedo [3] of the beard: that of the hair, greyer by `beard_grey`."""
    return np.array(hair.colour) * 0.9 * (1 - traits.beard_grey) + np.array([0.30, 0.29, 0.28]) * traits.beard_grey


def beard_cover(template, traits: FacialHairTraits) -> np.ndarray:
    """Density of the beard at the template's fine vertices [N2], 0..1.  Also used for the shadow on the skin."""
    across, height, _ = (template.mean_fine - template.eye_middle).T
    cover = template.regions["beard"]
    moustache = smoothstep(-0.068, -0.064, height) * smoothstep(0.036, 0.030, np.abs(across))
    chin = smoothstep(0.034, 0.028, np.abs(across))
    return cover * {"moustache": moustache, "goatee": chin}.get(traits.beard, 1.0)


def grow_brows(template, head, traits: FacialHairTraits, hair: HairTraits, rng: np.random.Generator) -> Strands:
    """Strands of both brows: upright at their inner ends, then lying outward along the arc, and down at the outer ends."""
    roots = template.brow_roots
    roots = roots[rng.random(len(roots)) < traits.brow_density]
    across = roots.at(template.mean_fine)[:, 0]
    outward = np.clip((np.abs(across) - _INNER_BROW) / _BROW_SPAN, 0, 1)
    way = np.stack([np.sign(across) * (0.25 + 0.9 * outward), 0.9 - 1.3 * outward, -0.35 * outward], axis=1)
    start, normals = roots.at(head.fine), unit(roots.at(head.fine_normals))
    way = unit(tangential(way, normals) + 0.25 * normals + rng.normal(0, 0.12, way.shape))
    lengths = traits.brow_length * rng.uniform(0.004, 0.0075, len(way))[:, None]
    u = np.linspace(0, 1, _BROW_POINTS)
    lift = 0.0002 - 0.22 * u**2 * lengths
    points = start[:, None] + way[:, None] * (u * lengths)[..., None] + normals[:, None] * lift[..., None]
    radii = tapered(np.full(len(points), _BROW_RADIUS), _BROW_POINTS)
    return Strands(points.astype(np.float32), radii.astype(np.float32), brow_colour(hair))


def grow_beard(template, head, traits: FacialHairTraits, hair: HairTraits, rng: np.random.Generator) -> Strands | None:
    """Strands of the beard, pointing down and slightly outward.  None if it is only a shadow on the skin, or nothing."""
    kind = BEARDS[traits.beard]
    if not kind.strands:
        return None
    cover = beard_cover(template, traits)
    whole = template.regions["beard"] > 0.3
    roots = sample_roots(whole, kind.strands, rng, template.mean_fine, template.fine_faces)
    thickness = roots.at(cover)
    # Thin and short near its border, so that the edge is not a line.
    kept = rng.random(len(thickness)) < smoothstep(0.3, 0.9, thickness)
    roots, thickness = roots[kept], thickness[kept]
    start, normals = roots.at(head.fine), unit(roots.at(head.fine_normals))
    lengths = kind.length * traits.beard_length * rng.uniform(0.4, 1, len(start)) * (0.4 + 0.6 * smoothstep(0.4, 1, thickness))
    way = unit(0.5 * normals + [0, -0.9, 0.09] + rng.normal(0, 0.25, normals.shape))
    outward = unit(normals + 0.6 * way)
    u = np.linspace(0, 1, _BEARD_POINTS)
    along, bent = (u * (1 - 0.5 * u) * lengths[:, None])[..., None], (0.5 * u**2 * lengths[:, None])[..., None]
    points = start[:, None] + outward[:, None] * along + way[:, None] * bent
    radii = tapered(np.full(len(points), _BEARD_RADIUS), _BEARD_POINTS, tip=0.35)
    return Strands(points.astype(np.float32), radii.astype(np.float32), beard_colour(traits, hair))
