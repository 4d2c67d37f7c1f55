"""Lighting and background."""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

ENVIRONMENT_SHAPE = (32, 64)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB
CATCH_LIGHT = 0.04  # irradiance of the small lamp that is reflected in the eyes, as a share of all light
_MAX_LAMP_STRENGTH = 100.0


class Lamp(NamedTuple):
    """A soft disc of light.  Angles are in radians; `azimuth` is relative to the main lamp."""

    azimuth: float
    elevation: float
    size: float  # 1 - cos of the angle at which it has fallen to 1/e
    power: float  # radiance at the centre
    warmth: float


class LightKind(NamedTuple):
    """The light of a place: the tint of the ambient light and its increase from the ground to the sky, then the lamps."""

    ambient: tuple[float, float, float]
    slope: float
    lamps: tuple[Lamp, ...]


LIGHT_KINDS = {
    "studio": LightKind(
        (1.0, 1.0, 1.0),
        0.35,
        (Lamp(0, 0.6, 0.06, 5, 0.05), Lamp(2.2, 0.2, 0.15, 1.2, -0.1), Lamp(3.6, 0.5, 0.08, 2.5, 0)),
    ),
    "sky": LightKind((0.86, 0.98, 1.14), 0.45, (Lamp(0, 0.75, 0.02, 20, 0.14),)),
    "window": LightKind((1.0, 1.0, 1.0), 0.2, (Lamp(0, 0.25, 0.1, 5, -0.08), Lamp(2.6, 0.1, 0.3, 0.6, 0.15))),
    "overcast": LightKind((0.96, 1.0, 1.05), 0.8, (Lamp(0, 0.8, 0.3, 2, 0),)),
}


@dataclass(frozen=True)
class LightTraits:
    """The light in one person's pictures.

    `azimuth`: radians about y from the viewer's side, toward +x; `elevation`: radians added to each lamp's; `contrast`: ratio
    of the irradiances of the brightest and the darkest upright surface; `warmth`: -0.1 (blue) to 0.1 (yellow).
    """

    kind: str
    azimuth: float
    elevation: float
    contrast: float
    warmth: float


def sample_light(rng: np.random.Generator) -> LightTraits:
    """Draw light from any direction, soft enough that details remain visible in shadow."""
    return LightTraits(
        kind=str(rng.choice(list(LIGHT_KINDS))),
        azimuth=float(rng.uniform(-np.pi, np.pi)),
        elevation=float(rng.uniform(-0.15, 0.35)),
        contrast=float(rng.uniform(1.5, 3.6)),
        warmth=float(np.clip(rng.normal(0, 0.05), -0.1, 0.1)),
    )


def environment_directions() -> tuple[np.ndarray, np.ndarray]:
    """World directions [32, 64, 3] of the pixels of an environment map, and their solid angles [32, 64]."""
    height, width = ENVIRONMENT_SHAPE
    polar = ((np.arange(height) + 0.5) / height * np.pi)[:, None]
    around = (np.arange(width) + 0.5) / width * 2 * np.pi
    directions = [np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around, -np.sin(polar) * np.cos(around)]
    solid_angles = np.sin(polar) * (np.pi / height) * (2 * np.pi / width) + 0 * around
    return np.stack(directions, axis=2), solid_angles


def irradiance(environment: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Reflected radiance [n, 3] of white surfaces with `normals` [n, 3]; it is 1 under an environment of 1."""
    directions, solid_angles = environment_directions()
    cosines = np.clip(normals @ directions.reshape(-1, 3).T, 0, None)
    return cosines @ (environment * solid_angles[..., None]).reshape(-1, 3) / np.pi


def upright_normals(n: int = 16) -> np.ndarray:
    """Horizontal directions [n, 3] all around, starting with the one toward the viewer."""
    angles = np.arange(n) / n * 2 * np.pi
    return np.stack([np.sin(angles), np.zeros(n), np.cos(angles)], axis=1)


def environment_map(traits: LightTraits) -> np.ndarray:
    """Radiance [32, 64, 3], float32, such that upright white surfaces have a mean luminance of 1 and `traits.contrast`.

    Apart from the warmth, their mean colour is white, as if a camera had applied white balance.
    """
    kind = LIGHT_KINDS[traits.kind]
    directions, _ = environment_directions()
    ambient = np.array(kind.ambient) * (1 + kind.slope * directions[..., 1:2])
    lamps = sum(_lamp(lamp, traits, directions) for lamp in kind.lamps)
    glint = _lamp(Lamp(0.35 * np.sign(np.sin(traits.azimuth)) - traits.azimuth, 0.45, 0.006, 1, 0), traits, directions)
    strength = _strength_for_contrast(ambient, lamps, traits.contrast)
    light = ambient + strength * lamps
    light += glint * (CATCH_LIGHT * _mean_luminance(light) / max(_mean_luminance(glint), 1e-6))
    light *= _warm(traits.warmth) / irradiance(light, upright_normals()).mean(axis=0)
    return (light / _mean_luminance(light)).astype(np.float32)


def _lamp(lamp: Lamp, traits: LightTraits, directions: np.ndarray) -> np.ndarray:
    azimuth, elevation = traits.azimuth + lamp.azimuth, lamp.elevation + traits.elevation
    toward = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    return lamp.power * np.exp((directions @ toward - 1) / lamp.size)[..., None] * _warm(lamp.warmth)


def _warm(warmth: float) -> np.ndarray:
    return np.array([1 + warmth, 1, 1 - warmth])


def _upright_luminance(environment: np.ndarray) -> np.ndarray:
    return irradiance(environment, upright_normals()) @ LUMINANCE


def _mean_luminance(environment: np.ndarray) -> float:
    return float(_upright_luminance(environment).mean())


def _strength_for_contrast(ambient: np.ndarray, lamps: np.ndarray, contrast: float) -> float:
    """Find the strength of the lamps for a contrast by bisection; the largest strength if they are too uniform for it."""
    on_ambient, from_lamps = _upright_luminance(ambient), _upright_luminance(lamps)
    low, high = 0.0, _MAX_LAMP_STRENGTH
    for _ in range(40):
        middle = (low + high) / 2
        total = on_ambient + middle * from_lamps
        low, high = (middle, high) if total.max() < contrast * total.min() else (low, middle)
    return low


def sample_background(rng: np.random.Generator, resolution: int) -> np.ndarray:
    """A background [resolution, resolution, 3], sRGB in 0..1: plain, a gradient, or a picture that is far out of focus."""
    kind = rng.choice(["plain", "gradient", "blurred"], p=[0.2, 0.25, 0.55])
    base = _muted_colour(rng)
    if kind == "plain":
        cells = np.tile(base, (2, 2, 1))
    elif kind == "gradient":
        cells = _gradient_cells(base, rng)
    else:
        cells = _scenery_cells(base, rng)
    grain = rng.normal(0, 0.006, (resolution, resolution, 1))  # like the noise of every camera
    return np.clip(_enlarge(cells, resolution) + grain, 0, 1)


def _muted_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.random(), min(rng.beta(1.0, 5.0), 0.4), rng.uniform(0.12, 0.92)))


def _gradient_cells(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    other = np.clip(base * rng.uniform(0.6, 1.3) + rng.normal(0, 0.04, 3), 0, 1)
    if rng.random() < 0.5:  # from one side to the other
        along = np.cos(rng.uniform(0, 2 * np.pi)) * np.linspace(-0.5, 0.5, 8) + 0.5
        across = np.linspace(-0.5, 0.5, 8) * rng.uniform(-1, 1)
        share = np.clip(along[:, None] + across, 0, 1)
    else:  # a spot on a wall
        x, y = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8))
        share = np.exp(-((x - rng.uniform(-0.4, 0.4)) ** 2 + (y - rng.uniform(-0.4, 0.4)) ** 2) / 0.8)
    return base + (other - base) * share[..., None]


def _scenery_cells(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blocks and spots of light on a small raster, which look like a blurred place when enlarged."""
    size = int(rng.integers(8, 18))
    noise = rng.normal(0, 0.14, (size, size, 1)) + rng.normal(0, 0.04, (size, size, 3))
    cells = np.clip(base + noise, 0, 1)
    for _ in range(int(rng.integers(2, 6))):  # furniture, trees, doors
        top, left = rng.integers(0, size, 2)
        height, width = rng.integers(1, size, 2)
        shade = 0.5 * base + 0.5 * _muted_colour(rng)
        cells[top : top + height, left : left + width] = 0.35 * cells[top : top + height, left : left + width] + 0.65 * shade
    for _ in range(int(rng.integers(0, 4))):  # lamps and leaves in the sun
        row, column = rng.integers(0, size, 2)
        cells[row, column] += rng.uniform(0.1, 0.6)
    return gaussian_filter(np.clip(cells, 0, 1), (1.4, 1.4, 0.0), mode="nearest")  # hides the edges of the cells


def _enlarge(cells: np.ndarray, resolution: int) -> np.ndarray:
    """Enlarge cells [k, k, 3] to a smooth picture [resolution, resolution, 3]."""
    channels = [
        Image.fromarray(cells[..., c].astype(np.float32)).resize((resolution, resolution), Image.Resampling.BICUBIC)
        for c in range(3)
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=2), 0, 1)
