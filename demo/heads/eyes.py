"""Eyes: white, iris and pupil painted on the eyeball, rotated to where the person looks."""

from dataclasses import dataclass

import numpy as np

from .geometry import Mesh, smoothstep
from .shape import Head, Phenotype
from .template import Template

# Linear albedo of irises.
IRIS_COLOURS = {
    "dark brown": (0.045, 0.022, 0.010),
    "brown": (0.090, 0.045, 0.018),
    "hazel": (0.120, 0.110, 0.040),
    "green": (0.100, 0.160, 0.090),
    "blue": (0.100, 0.190, 0.300),
    "grey": (0.200, 0.250, 0.280),
}
WHITE = (0.50, 0.465, 0.445)  # dark, because lids and lashes shade it more than the renderer does

_IRIS_RADIUS = 0.42  # relative to the eyeball
_PUPIL_RADIUS = 0.38  # relative to the iris
_FIBRES = 23
_MOST_YAW, _MOST_PITCH = 0.18, 0.05  # radians; beyond these the lids would have to follow


@dataclass(frozen=True)
class EyeTraits:
    """Both eyes: the iris's colour by name; the gaze in radians, `yaw` toward +x, `pitch` upward; opacity of `lashes`."""

    iris: str
    yaw: float
    pitch: float
    lashes: float


def sample_eyes(rng: np.random.Generator, phenotype: Phenotype) -> EyeTraits:
    """Draw eyes that look near the camera of a frontal picture.  Light irises depend on European descent."""
    european = phenotype.caucasian
    weights = [
        0.5 + phenotype.african + phenotype.asian,
        0.3,
        0.12 * european,
        0.12 * european,
        0.3 * european,
        0.15 * european,
    ]
    chances = np.array(weights) + 0.005
    return EyeTraits(
        iris=str(rng.choice(list(IRIS_COLOURS), p=chances / chances.sum())),
        yaw=float(np.clip(rng.normal(0, 0.08), -_MOST_YAW, _MOST_YAW)),
        pitch=float(np.clip(rng.normal(0, 0.03), -_MOST_PITCH, _MOST_PITCH)),
        lashes=float(rng.uniform(0.3, 0.42) if phenotype.gender > 0.5 else rng.uniform(0.12, 0.2)),
    )


def eye_mesh(template: Template, head: Head, traits: EyeTraits, side: str, rng: np.random.Generator) -> Mesh:
    """The coloured eyeball of a side ("left" or "right"), rotated about its centre by the gaze."""
    eye = template.eyes[side]
    vertices = eye.matrix @ head.base[eye.indices]
    centre = vertices.mean(axis=0)
    offset = vertices - centre
    colours = _eye_colours(offset, IRIS_COLOURS[traits.iris], rng)
    return Mesh(centre + offset @ _gaze_rotation(traits).T, eye.faces, colours)


def _gaze_rotation(traits: EyeTraits) -> np.ndarray:
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = (f(a) for a in (traits.yaw, -traits.pitch) for f in (np.cos, np.sin))
    turn = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    return turn @ np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])


def _eye_colours(offset: np.ndarray, iris: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Linear albedo [n, 3] at `offset` [n, 3] from the centre of an eyeball that looks along z."""
    radius = np.abs(offset[:, 0]).max()
    from_axis = np.hypot(offset[:, 0], offset[:, 1])
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    in_front = offset[:, 2] > 0

    veins = 0.2 * np.clip(from_axis / radius - 0.5, 0, 1)[:, None] * [0, 1, 1]
    colours = np.array(WHITE) * (1 - veins)

    along_iris = from_axis / (_IRIS_RADIUS * radius)  # 0 at the centre of the pupil, 1 at the limbus
    fibres = 1 + 0.25 * np.sin(_FIBRES * angle + rng.uniform(0, 2 * np.pi)) * np.sin(7 * angle)
    fibres += rng.normal(0, 0.1, len(offset))
    brightness = fibres * (0.55 + 0.45 * np.clip(1 - np.abs(along_iris - 0.55) / 0.4, 0, 1))
    brightness *= 1 - 0.7 * smoothstep(0.82, 1.0, along_iris)  # the dark ring at the limbus
    painted = np.array(iris) * brightness[:, None]
    painted = np.where(along_iris[:, None] < 1, painted, np.array(iris) * 0.3)

    iris_share = (smoothstep(1.08, 0.98, along_iris) * in_front)[:, None]
    pupil_share = (smoothstep(_PUPIL_RADIUS + 0.04, _PUPIL_RADIUS - 0.04, along_iris) * in_front)[:, None]
    colours = colours * (1 - iris_share) + painted * iris_share
    return np.clip(colours * (1 - pupil_share) + 0.004 * pupil_share, 0.003, 0.9).astype(np.float32)
