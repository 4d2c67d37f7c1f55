"""Tables of hair styles and colours, and how one person's hair is drawn from them."""

from dataclasses import dataclass

import numpy as np

from .geometry import smoothstep

# Linear albedo of hair.
HAIR_COLOURS = {
    "black": (0.010, 0.008, 0.007),
    "dark brown": (0.030, 0.018, 0.011),
    "brown": (0.075, 0.040, 0.022),
    "light brown": (0.16, 0.095, 0.05),
    "blond": (0.38, 0.26, 0.13),
    "red": (0.22, 0.07, 0.022),
    "grey": (0.30, 0.29, 0.28),
    "white": (0.60, 0.58, 0.56),
}


@dataclass(frozen=True)
class HairStyle:
    """The parameters of a style.  Lengths are in metres before scaling."""

    combing: str  # away: from the whorl; parted, side, back: over a parting or backward; tie: to where it is tied
    count: int  # strands
    length_top: float
    length_sides: float
    steps: int  # points along a guide strand
    points: int  # points along a rendered strand; curls need more of them
    margin: tuple[float, float]  # height of the layers of hair above the skin
    lift: float = 0.3  # how far it first stands off the skin
    comb: float = 1.0  # how strongly it follows the combing
    gravity: float = 0.0
    curl: tuple[float, float] = (0.0005, 0.04)  # amplitude and wavelength
    radius: float = 0.00025
    cling: float = 0.0  # how strongly it lies down on the hair below
    clump: float = 0.5  # how far strands run together toward their ends
    cut: float | None = None  # height of the ends relative to the eyes; None: as they grow
    fringe: bool = False
    women: float = 0.0  # weights in the draw
    men: float = 0.0


STYLES = {
    "bald": HairStyle("away", 0, 0, 0, 2, 2, (0, 0), men=0.10, women=0.01),
    "buzz": HairStyle(
        "away", 30_000, 0.006, 0.004, 4, 5, (0.0005, 0.001), lift=1.0, comb=0.4, curl=(0, 0.02), radius=0.00020, clump=0,
        men=0.12, women=0.01,
    ),
    "crop": HairStyle(
        "away", 30_000, 0.028, 0.012, 7, 8, (0.001, 0.010), lift=0.8, comb=0.9, gravity=0.1, curl=(0.0008, 0.02),
        radius=0.00024, clump=0.45, cling=0.3, men=0.22, women=0.05,
    ),
    "side part": HairStyle(
        "side", 24_000, 0.075, 0.022, 13, 16, (0.002, 0.013), lift=0.55, comb=2.2, gravity=0.5, curl=(0.001, 0.04),
        radius=0.00024, clump=0.55, cling=0.8, cut=-0.075, men=0.18, women=0.02,
    ),
    "slick": HairStyle(
        "back", 24_000, 0.10, 0.045, 14, 18, (0.001, 0.009), lift=0.25, comb=3.0, gravity=0.5, curl=(0.0006, 0.04),
        radius=0.00024, clump=0.6, cling=1.5, cut=-0.075, men=0.12, women=0.02,
    ),
    "bob": HairStyle(
        "parted", 22_000, 0.24, 0.16, 20, 26, (0.002, 0.018), lift=0.35, gravity=2.2, curl=(0.0012, 0.06), radius=0.00026,
        clump=0.6, cut=-0.085, women=0.14, men=0.02,
    ),
    "bangs": HairStyle(
        "away", 22_000, 0.24, 0.16, 20, 26, (0.002, 0.016), lift=0.35, gravity=2.2, curl=(0.001, 0.06), radius=0.00026,
        clump=0.6, cut=-0.085, fringe=True, women=0.12,
    ),
    "long": HairStyle(
        "parted", 24_000, 0.36, 0.32, 26, 32, (0.002, 0.018), gravity=2.4, curl=(0.002, 0.08), radius=0.00027, clump=0.65,
        women=0.20, men=0.03,
    ),
    "wavy": HairStyle(
        "parted", 22_000, 0.32, 0.28, 26, 42, (0.003, 0.022), lift=0.4, gravity=2.0, curl=(0.007, 0.055), radius=0.00027,
        clump=0.8, women=0.16, men=0.03,
    ),
    "curly": HairStyle(
        "away", 14_000, 0.085, 0.05, 14, 44, (0.002, 0.026), lift=0.9, comb=0.5, gravity=0.9, curl=(0.0045, 0.017),
        radius=0.00026, clump=0.75, women=0.08, men=0.10,
    ),
    "afro": HairStyle(
        "away", 16_000, 0.060, 0.045, 12, 44, (0.002, 0.040), lift=1.0, comb=0.0, gravity=0.15, curl=(0.0035, 0.010),
        radius=0.00024, clump=0.3, women=0.06, men=0.07,
    ),
    "tied": HairStyle(
        "tie", 22_000, 0.26, 0.26, 20, 26, (0.001, 0.005), lift=0.1, comb=4.0, curl=(0.0004, 0.05), clump=0.5,
        women=0.15, men=0.02,
    ),
}  # fmt: skip

# Only short hair shows a receding hairline or a bare crown; longer hair is combed over them.
_THINNING_STYLES = ("buzz", "crop", "side part", "slick")


@dataclass(frozen=True)
class HairTraits:
    """One person's hair.  Factors multiply the style's number; heights and offsets are in metres relative to the eyes."""

    style: str
    colour_name: str
    colour: tuple[float, float, float]  # linear albedo
    grey: float  # share of grey strands
    length: float  # factor
    volume: float  # factor of how high it stands above the skin
    wave: float  # factor of the curls' amplitude
    parting: float  # position of the parting: metres to the person's left of the middle
    recession: float  # 0..1: how far temples and forehead have receded
    thinning: float  # 0..1: how bare the crown is; 1 leaves a wreath
    fringe: float  # height of the fringe's ends above the eyes
    cut: float  # metres added to the height of the style's cut
    opening: float  # factor of how far the face is kept free
    tie_height: float  # height above the eyes at which hair is tied
    bun: bool  # tied hair ends in a bun instead of a tail


def sample_hair(rng: np.random.Generator, phenotype, style: str | None = None) -> HairTraits:
    """Draw hair for a phenotype (fields african, asian, caucasian, gender 0 man … 1 woman, age); `style` sets the style."""
    womanly = phenotype.gender > 0.5
    weights = np.array([each.women if womanly else each.men for each in STYLES.values()])
    drawn = str(rng.choice(list(STYLES), p=weights / weights.sum()))
    style = drawn if style is None else style
    colour_name = _sample_colour(rng, phenotype)
    # Shades of one colour differ between people.
    colour = np.array(HAIR_COLOURS[colour_name]) * rng.uniform(0.8, 1.25) * rng.uniform(0.93, 1.07, 3)
    years = float(smoothstep(0.68, 0.98, phenotype.age))
    balding = years * rng.beta(0.9, 1.1) * (not womanly) * (style in _THINNING_STYLES)
    grey = float(years * rng.uniform(-0.3, 0.8))
    middle = rng.random() < 0.35
    return HairTraits(
        style=style,
        colour_name=colour_name,
        colour=tuple(float(value) for value in np.clip(colour, 0.004, 0.8)),
        grey=grey if grey > 0.1 and colour_name not in ("grey", "white") else 0.0,  # a few strands would look like threads
        length=float(rng.uniform(0.8, 1.2)),
        volume=float(rng.uniform(0.75, 1.2)),
        wave=float(rng.uniform(0.5, 1.5)),
        parting=float(rng.choice([-1, 1]) * (rng.uniform(0, 0.006) if middle else rng.uniform(0.015, 0.036))),
        recession=float(balding),
        thinning=float(np.clip(rng.uniform(-0.6, 1.6), 0, 1) * (balding > 0.25)),
        fringe=float(rng.uniform(0.012, 0.028)),
        cut=float(rng.uniform(-0.03, 0.025)),
        opening=float(rng.uniform(0.92, 1.12)),
        tie_height=float(rng.uniform(-0.06, 0.05)),
        bun=bool(rng.random() < 0.5),
    )


def _sample_colour(rng: np.random.Generator, phenotype) -> str:
    """Draw a colour: dark hair is common everywhere, light and red hair mostly in Europeans, grey and white with age."""
    african, asian, european = phenotype.african, phenotype.asian, phenotype.caucasian
    old = np.clip((phenotype.age - 0.75) / 0.23, 0, 1)
    weights = {
        "black": 0.25 + african + asian,
        "dark brown": 0.25 + 0.3 * asian + 0.2 * european,
        "brown": 0.03 + 0.25 * european,
        "light brown": 0.01 + 0.2 * european,
        "blond": 0.01 + 0.2 * european,
        "red": 0.005 + 0.1 * european,
        "grey": 0.6 * old,
        "white": 0.6 * old**2,
    }
    chances = np.array([weights[name] for name in HAIR_COLOURS])
    return str(rng.choice(list(HAIR_COLOURS), p=chances / chances.sum()))


def hairline_edge(hairline: np.ndarray, azimuth: np.ndarray, traits: HairTraits) -> np.ndarray:
    """Metres above this person's hairline [n], from those above the template's [n] and the azimuth [n] in radians."""
    front = np.abs(azimuth)
    temples = np.clip(1 - np.abs(front - 0.62) / 0.5, 0, 1)
    forehead = smoothstep(1.1, 0.5, front)
    return hairline - traits.recession * (0.024 * temples + 0.008 * forehead)


def scalp_density(hairline: np.ndarray, azimuth: np.ndarray, height: np.ndarray, traits: HairTraits) -> np.ndarray:
    """Density of the hair [n], 0..1, at a height `hairline` above the template's hairline, an azimuth, and a `height` above the
    eyes (metres, on the template): thin at the edge, zero where hair has receded or the crown is bare.
    """
    edge = smoothstep(-0.002, 0.009, hairline_edge(hairline, azimuth, traits))
    # The front of the crown keeps its hair longest, except on the barest heads.
    front = smoothstep(1.0, 0.5, np.abs(azimuth)) * (1 - traits.thinning)
    crown = smoothstep(0.062, 0.090, height) * (1 - front)
    return edge * (1 - 0.97 * traits.thinning * crown)
