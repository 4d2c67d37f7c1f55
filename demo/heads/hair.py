"""Hair of the head: selects the roots that carry strands, and grows them."""

import numpy as np

from .geometry import Mesh
from .hair_growth import GUIDES, Site, grow_guides, grow_strands, scalp_points
from .hair_strands import Strands
from .hair_styles import HAIR_COLOURS, STYLES, HairStyle, HairTraits, hairline_edge, sample_hair, scalp_density
from .hair_tied import grow_knot

__all__ = ["HAIR_COLOURS", "STYLES", "HairStyle", "HairTraits", "grow_hair", "sample_hair", "scalp_density"]


def grow_hair(template, head, traits: HairTraits, cloth: Mesh | None, rng: np.random.Generator) -> list[Strands]:
    """Grow the hair of a head: one `Strands` per shade, none for a bald head.  It stays outside of `cloth` if given."""
    style = STYLES[traits.style]
    if not style.count:
        return []
    chosen = _choose_roots(template, traits, style, rng)
    edge = hairline_edge(template.scalp_hairline[chosen], template.scalp_azimuth[chosen], traits)
    roots = scalp_points(template, head, chosen, edge)
    site = Site(head, cloth)
    guides = grow_guides(style, traits, site, roots[: min(GUIDES, len(roots))], rng)
    strands = grow_strands(style, traits, site, roots, guides, rng)
    if style.combing == "tie":
        strands += grow_knot(style, traits, site, rng)
    return strands


def _choose_roots(template, traits: HairTraits, style: HairStyle, rng: np.random.Generator) -> np.ndarray:
    """Indices of the scalp roots that carry a strand, in random order, so that the first of them can serve as guides."""
    height = template.scalp_roots.at(template.mean_coarse)[:, 1] - template.eye_middle[1]
    density = scalp_density(template.scalp_hairline, template.scalp_azimuth, height, traits)
    # A bare crown removes strands in proportion to its share of the scalp, instead of crowding them into the rest.
    share = style.count / len(density)
    return np.flatnonzero(rng.random(len(density)) < density * share)
