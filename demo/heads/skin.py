"""The colours of skin: tone, blood, freckles, lips, and shadows of hair that is too short or too fine for strands."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .facial_hair import BEARDS, FacialHairTraits, beard_colour, beard_cover, brow_colour
from .geometry import smoothstep, value_noise
from .hair_styles import HairTraits, scalp_density
from .shape import Phenotype
from .template import Template

# Linear albedo from the lightest to the darkest skin, in equal steps of melanin.
SKIN_TONES = np.array(
    [
        [0.700, 0.440, 0.345],
        [0.620, 0.385, 0.285],
        [0.520, 0.320, 0.220],
        [0.420, 0.250, 0.160],
        [0.270, 0.145, 0.090],
        [0.150, 0.078, 0.050],
        [0.085, 0.045, 0.030],
    ]
)
LIPSTICKS = ((0.42, 0.06, 0.07), (0.50, 0.14, 0.13), (0.35, 0.08, 0.12), (0.46, 0.20, 0.17))
INSIDE_MOUTH = (0.20, 0.04, 0.035)

_MEAN_SCORE, _SCORE_DEVIATION = 0.28, 0.23  # over all phenotypes, of the score from which melanin is computed
_SHORT_STYLES = ("buzz", "crop")  # the scalp shows through these


@dataclass(frozen=True)
class SkinTraits:
    """One person's skin.  Shares and strengths are 0..1.

    `melanin`: 0 is the lightest and 1 the darkest skin; `tone`: its linear albedo; `roughness`: of the rendered surface;
    `shaved`: how dark the roots on a shaved head are; `lipstick`: linear albedo, or None for bare lips.
    """

    melanin: float
    tone: tuple[float, float, float]
    roughness: float
    redness: float
    freckles: float
    blotches: float
    moles: int
    shaved: float
    lipstick: tuple[float, float, float] | None


def sample_skin(rng: np.random.Generator, phenotype: Phenotype) -> SkinTraits:
    """Draw skin for a phenotype.  Over many people, melanin is distributed evenly over the whole range."""
    score = 0.64 * phenotype.african + 0.22 * phenotype.asian + rng.normal(0, 0.13)
    melanin = float(ndtr((score - _MEAN_SCORE) / _SCORE_DEVIATION))  # the distribution function makes it uniform
    tone = skin_tone(melanin) * rng.uniform(0.95, 1.05, 3)
    lipstick = LIPSTICKS[rng.integers(len(LIPSTICKS))]
    return SkinTraits(
        melanin=melanin,
        tone=tuple(float(value) for value in tone),
        roughness=float(rng.uniform(0.45, 0.58)),
        redness=float(rng.uniform(0.35, 1.1)),
        freckles=float(rng.uniform(0.4, 1) * (rng.random() < 0.35 * (1 - melanin))),
        blotches=float(rng.uniform(0.6, 1.2) + 0.5 * max(0.0, phenotype.age - 0.75)),
        moles=int(rng.integers(0, 5)),
        shaved=float(rng.uniform(0, 0.22)),
        lipstick=lipstick if phenotype.gender > 0.5 and rng.random() < 0.45 else None,
    )


def skin_tone(melanin: float) -> np.ndarray:
    """The linear albedo [3] of skin with `melanin` 0..1."""
    steps = np.linspace(0, 1, len(SKIN_TONES))
    return np.exp([np.interp(melanin, steps, np.log(SKIN_TONES[:, channel])) for channel in range(3)])


def skin_colours(
    template: Template, skin: SkinTraits, hair: HairTraits, beard: FacialHairTraits, rng: np.random.Generator
) -> np.ndarray:
    """Linear albedo [N2, 3], float32, at the fine skin's vertices; the roots of hair and beard show in it."""
    regions = template.regions
    outside = regions["outer"]
    colours = np.tile(np.array(skin.tone), (len(template.mean_fine), 1))
    colours = _blood(colours, template, skin)
    colours = _grain(colours, template, skin, rng)
    colours = _spots(colours, template, skin, rng)
    colours *= 1 - 0.15 * _around_eyes(template)[:, None] * [0.8, 1.0, 0.9]
    colours *= 1 - 0.14 * (regions["eyelids"] * outside)[:, None] * [0.7, 1.0, 1.0]
    colours = _mixed(colours, _lip_colour(skin), 0.85 * regions["lips"])
    colours = _mixed(colours, INSIDE_MOUTH, regions["inside_mouth"])
    colours = _painted_hair(colours, template, skin, hair, beard, rng)
    return np.clip(colours, 0.004, 0.9).astype(np.float32)


def _mixed(colours: np.ndarray, other: np.ndarray | tuple, share: np.ndarray) -> np.ndarray:
    """Mix colours [n, 3] with a share [n], 0..1, of another colour ([3] or [n, 3])."""
    share = np.clip(share, 0, 1)[:, None]
    return colours * (1 - share) + np.asarray(other) * share


def _spot(template: Template, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """A soft spot [N2] of height one on the template; `centre` in metres from the middle of the eyes."""
    offset = template.mean_fine - (template.eye_middle + np.array(centre))
    return np.exp(-np.sum((offset / np.array(radii)) ** 2, axis=1))


def _spot_pair(template: Template, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    x, y, z = centre
    return _spot(template, (x, y, z), radii) + _spot(template, (-x, y, z), radii)


def _around_eyes(template: Template) -> np.ndarray:
    return _spot_pair(template, (0.030, -0.016, -0.005), (0.014, 0.006, 0.03))


def _blood(colours: np.ndarray, template: Template, skin: SkinTraits) -> np.ndarray:
    """Redden cheeks, nose, ears and chin, less visibly on darker skin."""
    red = 0.75 * _spot_pair(template, (0.036, -0.028, -0.012), (0.02, 0.018, 0.03))
    red += 0.6 * _spot(template, (0, -0.036, 0.03), (0.013, 0.013, 0.02))
    red += 0.25 * _spot(template, (0, -0.1, 0), (0.02, 0.015, 0.03))
    red += 0.5 * template.regions["ears"]
    share = 0.55 * np.clip(red * skin.redness * (1 - 0.5 * skin.melanin), 0, 1)
    return _mixed(colours, colours * [1.06, 0.80, 0.78], share)


def _grain(colours: np.ndarray, template: Template, skin: SkinTraits, rng: np.random.Generator) -> np.ndarray:
    """Add unevenness at three scales: blotches, mottling, and single vertices for pores."""
    points = template.mean_fine
    blotches = value_noise(points, 0.02, rng)[:, None]
    mottling = value_noise(points, 0.004, rng, octaves=2)[:, None]
    pores = rng.normal(0, 1, (len(points), 1))
    return colours * (1 + skin.blotches * (0.07 * blotches + 0.035 * mottling * [0.7, 1.0, 1.1]) + 0.05 * pores)


def _spots(colours: np.ndarray, template: Template, skin: SkinTraits, rng: np.random.Generator) -> np.ndarray:
    """Add freckles on cheeks and nose, and moles anywhere on face and neck."""
    points = template.mean_fine
    where = _spot_pair(template, (0.03, -0.02, 0), (0.04, 0.03, 0.05)) + _spot(template, (0, -0.02, 0.02), (0.03, 0.03, 0.05))
    dots = 2 * np.clip(value_noise(points, 0.0035, rng, octaves=1) - 0.35, 0, 1) * np.clip(where, 0, 1)
    colours = colours * (1 - skin.freckles * dots[:, None] * [0.25, 0.40, 0.45])
    on_face = np.flatnonzero((template.regions["outer"] > 0.5) & (points[:, 2] > 0.05) & (template.hairline < 0))
    for centre in points[rng.choice(on_face, skin.moles)]:
        size = rng.uniform(0.0009, 0.0018)
        mole = np.exp(-np.sum((points - centre) ** 2, axis=1) / size**2)
        colours = _mixed(colours, np.array(skin.tone) * [0.30, 0.22, 0.22], 0.8 * mole)
    return colours


def _lip_colour(skin: SkinTraits) -> np.ndarray:
    bare = np.array(skin.tone) * [0.88, 0.56, 0.56] * (1 - 0.1 * skin.melanin)
    return bare if skin.lipstick is None else 0.5 * bare + 0.5 * np.array(skin.lipstick)


def _painted_hair(
    colours: np.ndarray,
    template: Template,
    skin: SkinTraits,
    hair: HairTraits,
    beard: FacialHairTraits,
    rng: np.random.Generator,
) -> np.ndarray:
    """Darken scalp, brows and beard between the strands, for roots and for hair too fine to render."""
    regions, tone = template.regions, np.array(skin.tone)
    scalp = regions["outer"] * (1 - np.clip(2 * regions["ears"], 0, 1))
    ragged = template.hairline + 0.005 * value_noise(template.mean_fine, 0.006, rng, octaves=2)
    if hair.style == "bald":
        colours = _mixed(colours, 0.5 * tone, skin.shaved * scalp * smoothstep(0, 0.02, ragged))
    else:
        short = hair.style in _SHORT_STYLES
        height = template.mean_fine[:, 1] - template.eye_middle[1]
        density = scalp_density(ragged, template.azimuth, height, hair)
        roots = 0.8 * np.array(hair.colour) + (0.15 * tone if short else 0)
        colours = _mixed(colours, roots, (0.72 if short else 0.95) * scalp * density)
    colours = _mixed(colours, brow_colour(hair), 0.35 * regions["brows"])
    stubble = 0.55 * beard_colour(beard, hair) + 0.5 * tone * [0.35, 0.38, 0.42]
    return _mixed(colours, stubble, BEARDS[beard.beard].shadow * beard_cover(template, beard))
