"""The tail or bun of tied hair."""

import numpy as np

from .geometry import unit
from .hair_growth import SKIN_MARGIN, Site, tie_point
from .hair_strands import Strands, shaded, tapered
from .hair_styles import HairStyle, HairTraits

_STRANDS = 3_500
_BUN_RADIUS = np.array([0.027, 0.024, 0.018])  # flattened against the head, so that it stays inside the frame
_TAIL_STEPS = 22


def grow_knot(style: HairStyle, traits: HairTraits, site: Site, rng: np.random.Generator) -> list[Strands]:
    """The strands beyond the knot: a bun or a tail, depending on the traits."""
    points = _bun(traits, site, rng) if traits.bun else _tail(traits, site, rng)
    radii = tapered(style.radius * rng.uniform(0.8, 1.2, len(points)), points.shape[1])
    return shaded(points, radii, np.array(traits.colour), rng, traits.grey)


def _bun(traits: HairTraits, site: Site, rng: np.random.Generator, count: int = 14) -> np.ndarray:
    """Arcs [n, count, 3] wound around a flattened ball, mostly about the axis that points away from the head."""
    axes = unit(rng.normal(0, 0.5, (_STRANDS, 3)) + [0, 0, 1.0])
    across = unit(np.cross(axes, rng.normal(0, 1, (_STRANDS, 3))))
    angles = np.linspace(0, 2.8, count)[None, :, None]
    arcs = across[:, None] * np.cos(angles) + np.cross(axes, across)[:, None] * np.sin(angles)
    radius = np.sqrt(rng.uniform(0.35, 1, _STRANDS))[:, None, None] * _BUN_RADIUS
    centre = tie_point(site, traits) - [0, 0, 0.6 * _BUN_RADIUS[2]]
    points = centre + arcs * radius + rng.normal(0, 0.001, (_STRANDS, 1, 3))
    return _settled(points, site)


def _tail(traits: HairTraits, site: Site, rng: np.random.Generator) -> np.ndarray:
    """Strands [n, steps, 3] that leave the knot backward and fall, spreading slightly."""
    across = rng.normal(0, 1, (_STRANDS, 3))
    here = tie_point(site, traits) + 0.004 * across
    heading = unit(np.array([0, -0.3, -1.0]) + 0.15 * across)
    stride = (rng.uniform(0.16, 0.24, _STRANDS) * traits.length / (_TAIL_STEPS - 1))[:, None]
    points = np.empty((_STRANDS, _TAIL_STEPS, 3))
    margin = rng.uniform(0.002, 0.022, _STRANDS)
    for step in range(_TAIL_STEPS):
        points[:, step] = here
        heading = unit(heading + 0.35 * np.array([0, -1.0, -0.02]) + 0.012 * across)
        here = site.settle(here + heading * stride, margin)[0]
    return points


def _settled(points: np.ndarray, site: Site) -> np.ndarray:
    flat = points.reshape(-1, 3)
    return site.settle(flat, np.full(len(flat), SKIN_MARGIN))[0].reshape(points.shape)
