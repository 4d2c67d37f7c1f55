"""The shape of a person: draws phenotype, face and expression at random, and computes the vertices of the head."""

from dataclasses import dataclass

import numpy as np

import camera_utils
from dnnlib.util import UserError

from .geometry import vertex_normals
from .template import Template, middle_of_eyes

WORLD_EYE_MIDDLE = np.array([0.0, 0.034, 0.125])  # position of the eyes in the published crops, in units of `camera_utils`
NOSE_UP = np.radians(6.5)  # pitch, in the labels of photos, of a head that is level like the template
_MEAN_SCALE = 2.41  # world units per metre, fitted on frontal photos
_MEAN_INTEROCULAR = 0.1483  # world units between the eyes' centres in those photos
_MEAN_EYE_TO_MOUTH = 0.1607  # world units from the eyes down to the middle of the lips
_SCALE_RANGE = (2.2, 2.65)  # outside of this range, a head would look like a child or a giant
_SKULL_BACK = -0.27  # world z behind which no skull should reach: pictures from the side end at -0.317, and there is hair
_SKULL_TOP = 0.305  # world y that no skull reaches; pictures end at 0.317
_MOST_FORWARD = 0.05  # world units by which eyes may move forward for this; beyond, labels of photos would not fit

_LOWEST_LIP = 0.0884  # metres below the template's eyes; the region of the lips is above this

_AGE_OF_WRINKLES = 0.75
_AVERAGE = 0.5  # for traits of the phenotype that are not varied here

# Anchors of each trait's variations, in the order of the columns of `phenotype_mask` (after the three origins).
_TRAIT_ANCHORS = {
    "gender": np.linspace(0, 1, 2),
    "age": np.linspace(-1 / 3, 1, 5),  # newborn, baby, child, young, old
    "muscle": np.linspace(0, 1, 3),
    "weight": np.linspace(0, 1, 3),
    "height": np.linspace(0, 1, 2),
    "proportions": np.linspace(0, 1, 2),
    "cupsize": np.linspace(0, 1, 3),
    "firmness": np.linspace(0, 1, 3),
}


@dataclass(frozen=True)
class Phenotype:
    """The traits of a whole body: shares of three origins (summing to one), and further traits in 0..1.

    gender 0 is male, 1 female; age 0.58 is about twenty years, 1 is old; 0.5 is the average of muscle, weight and proportions.
    """

    african: float
    asian: float
    caucasian: float
    gender: float
    age: float
    muscle: float
    weight: float
    proportions: float


@dataclass(frozen=True)
class Expression:
    """A mild expression: its name, and the strength 0..1 of each of its facial actions by name."""

    name: str
    actions: dict[str, float]


@dataclass(frozen=True)
class Placement:
    """How a head is placed in the world of the cameras: nose up by NOSE_UP, scaled by `scale`, `anchor` [3] at `place` [3]."""

    scale: float
    anchor: np.ndarray
    place: np.ndarray

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """World positions of points [..., 3] in head space."""
        return _nose_up(points - self.anchor) * self.scale + self.place

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """Positions in head space of world points [..., 3]."""
        return _nose_up((points - self.place) / self.scale, -NOSE_UP) + self.anchor


def _nose_up(offsets: np.ndarray, angle: float = NOSE_UP) -> np.ndarray:
    """Rotate offsets [..., 3] about x."""
    x, y, z = np.moveaxis(offsets, -1, 0)
    return np.stack([x, y * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - y * np.sin(angle)], axis=-1)


@dataclass(frozen=True)
class Head:
    """One person's head, in metres in head space, with the meshes of `Template`.

    base [V, 3]: all vertices, including eyes, teeth and lashes; coarse [N1, 3] and fine [N2, 3]: the skin, subdivided once and
    twice, with unit normals; eye_middle [3]: midway between the fronts of the irises of the face at rest.
    """

    base: np.ndarray
    coarse: np.ndarray
    coarse_normals: np.ndarray
    fine: np.ndarray
    fine_normals: np.ndarray
    eye_middle: np.ndarray
    placement: Placement


@dataclass(frozen=True)
class _ChangeGroup:
    """Local changes with the same distribution: their standard deviation and names; `paired` ones exist for left and right."""

    deviation: float
    names: tuple[str, ...]
    paired: bool = False


# Larger deviations give caricatures.  Changes that move the nose or mouth off the middle, or the eyeball out of its lids, are
# absent.
_CHANGE_GROUPS = (
    _ChangeGroup(
        0.20,
        (
            *("nose-base-up", "nose-point-up", "nose-trans-up", "nose-trans-forward", "nose-nostrils-angle-up"),
            *("nose-scale-depth-incr", "nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-volume-incr"),
            *("nose-width1-incr", "nose-width2-incr", "nose-width3-incr", "nose-point-width-incr"),
            *("nose-nostrils-width-incr", "nose-flaring-incr", "nose-septumangle-incr", "nose-compression-uncompress"),
            *("nose-curve-convex", "nose-greek-incr", "nose-hump-incr"),
        ),
    ),
    _ChangeGroup(
        0.25,
        (
            *("mouth-trans-up", "mouth-trans-forward", "mouth-angles-up", "mouth-dimples-out", "mouth-laugh-lines-out"),
            *("mouth-scale-depth-incr", "mouth-scale-horiz-incr", "mouth-scale-vert-incr", "mouth-philtrum-volume-incr"),
            *("mouth-cupidsbow-incr", "mouth-cupidsbow-width-incr", "mouth-lowerlip-ext-up", "mouth-upperlip-ext-up"),
            *("mouth-lowerlip-height-incr", "mouth-lowerlip-middle-up", "mouth-lowerlip-volume-incr"),
            *("mouth-upperlip-height-incr", "mouth-upperlip-middle-up", "mouth-upperlip-volume-incr"),
            *("mouth-lowerlip-width-incr", "mouth-upperlip-width-incr"),
        ),
    ),
    _ChangeGroup(
        0.18,
        (
            *("chin-bones-incr", "chin-cleft-incr", "chin-height-incr", "chin-jaw-drop-incr"),
            *("chin-prognathism-incr", "chin-prominent-incr", "chin-width-incr"),
        ),
    ),
    _ChangeGroup(0.30, ("cheek-bones-incr", "cheek-inner-incr", "cheek-trans-up", "cheek-volume-incr"), paired=True),
    _ChangeGroup(
        0.25,
        (
            *("eye-bag-height-incr", "eye-bag-incr", "eye-bag-out", "eye-corner1-up", "eye-corner2-up"),
            *("eye-epicanthus-out", "eye-eyefold-angle-up", "eye-eyefold-up", "eye-scale-incr"),
            *("eye-height1-incr", "eye-height2-incr", "eye-height3-incr", "eye-trans-out", "eye-trans-up"),
        ),
        paired=True,
    ),
    _ChangeGroup(
        0.22,
        (
            *("ear-flap-incr", "ear-lobe-incr", "ear-rot-forward", "ear-wing-incr", "ear-trans-forward", "ear-trans-up"),
            *("ear-scale-depth-incr", "ear-scale-incr", "ear-scale-vert-incr", "ear-shape-round", "ear-shape-triangle"),
        ),
        paired=True,
    ),
    _ChangeGroup(
        0.25,
        (
            *("eyebrows-angle-up", "eyebrows-trans-up", "eyebrows-trans-forward"),
            *("forehead-temple-incr", "forehead-trans-forward"),
        ),
    ),
    _ChangeGroup(0.10, ("forehead-scale-vert-incr", "forehead-nubian-incr")),
    _ChangeGroup(
        0.15,
        (
            *("head-fat-incr", "head-angle-out", "head-scale-depth-incr", "head-back-scale-depth-incr"),
            *("head-scale-vert-incr", "head-scale-horiz-incr"),
        ),
    ),
    _ChangeGroup(0.25, ("neck-scale-depth-incr", "neck-scale-horiz-incr", "neck-double-incr")),
)
_MOST_DEVIATIONS = 2  # values are clipped here
_ASYMMETRY = 0.04  # standard deviation of right minus left


@dataclass(frozen=True)
class _ExpressionRule:
    """The frequency of an expression, and the full strength of its actions; `paired` ones are on both sides."""

    share: float
    paired: dict[str, float]
    single: dict[str, float]


_EXPRESSIONS = {
    "neutral": _ExpressionRule(0.30, {}, {}),
    "smile": _ExpressionRule(0.25, {"mouthSmile": 0.55, "cheekSquint": 0.4}, {}),
    "open": _ExpressionRule(0.10, {}, {"jawOpen": 0.3}),
    "laugh": _ExpressionRule(0.12, {"mouthSmile": 0.6, "cheekSquint": 0.5, "mouthUpperUp": 0.3}, {"jawOpen": 0.3}),
    "frown": _ExpressionRule(0.08, {"browDown": 0.7, "mouthFrown": 0.5}, {}),
    "surprise": _ExpressionRule(0.06, {"browOuterUp": 0.7, "eyeWide": 0.5}, {"browInnerUp": 0.8, "jawOpen": 0.3}),
    "squint": _ExpressionRule(0.06, {"eyeSquint": 0.6}, {}),
    "blink": _ExpressionRule(0.03, {"eyeBlink": 0.95}, {}),
}
_EYES_AT_REST = 0.25  # of eyeWide, because the template's lids hang low
_STRENGTH = (0.4, 1.0)  # range of an expression's strength


def sample_phenotype(rng: np.random.Generator) -> Phenotype:
    """Draw a random adult."""
    african, asian, caucasian = rng.dirichlet([0.45] * 3)  # mostly close to one origin, but all mixtures are possible
    return Phenotype(
        african=float(african),
        asian=float(asian),
        caucasian=float(caucasian),
        gender=float(rng.beta(0.35, 0.35)),
        age=float(rng.uniform(0.58, 0.98)),
        muscle=float(rng.uniform(0.3, 0.8)),
        weight=float(np.clip(rng.normal(0.5, 0.16), 0.15, 0.9)),
        proportions=float(rng.uniform(0.2, 0.9)),
    )


def sample_local_changes(rng: np.random.Generator, phenotype: Phenotype) -> dict[str, float]:
    """Draw random changes of face, head and neck by anny's names, about -0.6 to 0.6 (0 keeps the phenotype's shape)."""
    changes: dict[str, float] = {}
    for group in _CHANGE_GROUPS:
        most = _MOST_DEVIATIONS * group.deviation
        for name in group.names:
            value = float(np.clip(rng.normal(0, group.deviation), -most, most))
            if group.paired:
                changes[f"l-{name}"] = value
                changes[f"r-{name}"] = value + float(rng.normal(0, _ASYMMETRY))
            else:
                changes[name] = value
    changes["head-age-incr"] = 3 * max(0.0, phenotype.age - _AGE_OF_WRINKLES)
    return changes


def sample_expression(rng: np.random.Generator) -> Expression:
    """Draw a random mild expression."""
    names = list(_EXPRESSIONS)
    name = names[rng.choice(len(names), p=[rule.share for rule in _EXPRESSIONS.values()])]
    strength = 1.0 if name == "blink" else float(rng.uniform(*_STRENGTH))  # half-closed lids look drunk
    rule = _EXPRESSIONS[name]
    actions = {f"eyeWide{side}": _EYES_AT_REST for side in ("Left", "Right")}
    actions |= {f"{action}{side}": strength * most for action, most in rule.paired.items() for side in ("Left", "Right")}
    actions |= {action: strength * most for action, most in rule.single.items()}
    return Expression(name, actions)


def build_head(template: Template, phenotype: Phenotype, local_changes: dict[str, float], expression: Expression) -> Head:
    """Build the head with these traits.  It is placed by the face at rest, so that a smile does not move the head."""
    at_rest = _base_vertices(template, phenotype, local_changes, {})
    base = _base_vertices(template, phenotype, local_changes, expression.actions)
    coarse = template.coarse_matrix @ base[template.skin]
    fine = template.fine_matrix @ base[template.skin]
    eye_middle = middle_of_eyes(at_rest, template.parts)
    return Head(
        base=base,
        coarse=coarse,
        coarse_normals=vertex_normals(coarse, template.coarse_faces),
        fine=fine,
        fine_normals=vertex_normals(fine, template.fine_faces),
        eye_middle=eye_middle,
        placement=_place(template, at_rest, eye_middle),
    )


def _place(template: Template, at_rest: np.ndarray, eye_middle: np.ndarray) -> Placement:
    """Place the head with its eyes where the published crops have them, or nearer to the frontal camera and smaller by as much.

    Very high skulls are shrunk to fit into the frame.  Moving forward does not change the frontal picture, and brings the back
    of the skull into the pictures from the side.
    """
    skull = (template.fine_matrix @ at_rest[template.skin])[template.mean_fine[:, 1] > template.eye_middle[1]]
    _, height, front = _nose_up(skull - eye_middle).T
    scale = min(_scale(template, at_rest, eye_middle), (_SKULL_TOP - WORLD_EYE_MIDDLE[1]) / height.max())
    depth = -scale * front.min()
    to_camera = np.array([0, 0, camera_utils.DEFAULT_RADIUS]) - WORLD_EYE_MIDDLE
    # After a share t of the way to the camera, the back of the skull is at eyes + t·way - (1 - t)·depth.
    missing = _SKULL_BACK - (WORLD_EYE_MIDDLE[2] - depth)
    share = np.clip(missing / (to_camera[2] + depth), 0, _MOST_FORWARD / to_camera[2])
    return Placement(float(scale * (1 - share)), eye_middle, WORLD_EYE_MIDDLE + share * to_camera)


def _scale(template: Template, at_rest: np.ndarray, eye_middle: np.ndarray) -> float:
    """World units per metre: halfway between the mean scale and the one that puts eyes and mouth in their usual places."""
    left, right = (at_rest[np.unique(template.parts[part]), 0].mean() for part in ("left_eye", "right_eye"))
    lips = (template.regions["lips"] > 0.5) & (template.mean_fine[:, 1] > template.eye_middle[1] - _LOWEST_LIP)
    mouth = (template.fine_matrix @ at_rest[template.skin, 1])[lips].mean()
    fitted = (_MEAN_INTEROCULAR / (left - right) + _MEAN_EYE_TO_MOUTH / (eye_middle[1] - mouth)) / 2
    return float(np.clip((_MEAN_SCALE + fitted) / 2, *_SCALE_RANGE))


def _base_vertices(
    template: Template, phenotype: Phenotype, local_changes: dict[str, float], actions: dict[str, float]
) -> np.ndarray:
    """All base vertices [V, 3] of a head with these traits, float32, metres in head space."""
    shape = np.einsum("p,pc->c", _phenotype_weights(template.phenotype_mask, phenotype), template.phenotype_projection)
    values = _in_order(local_changes, template.changes)
    both_ways = np.stack([np.maximum(values, 0), np.maximum(-values, 0)], axis=1).ravel()
    coefficients = np.concatenate([shape, _in_order(actions, template.actions), both_ways]).astype(np.float32)
    # `@` would use a BLAS library, whose rounding depends on the number of threads.
    offsets = np.einsum("b,bv->v", coefficients, template.blendshapes)
    return template.base + offsets.reshape(template.base.shape)


def _in_order(values: dict[str, float], names: tuple[str, ...]) -> np.ndarray:
    """The values in the order of `names`, 0 if missing.  Raises UserError for a value with an unknown name."""
    if unknown := sorted(values.keys() - set(names)):
        raise UserError(f"this version of anny has no {unknown[0]}: install the version that pyproject.toml names")
    return np.array([values.get(name, 0.0) for name in names])


def _phenotype_weights(mask: np.ndarray, phenotype: Phenotype) -> np.ndarray:
    """Weight of each phenotype blendshape: the product of the shares of the variations selected by `mask` [P, 26]."""
    shares = [np.array([phenotype.african, phenotype.asian, phenotype.caucasian])]
    for trait, anchors in _TRAIT_ANCHORS.items():
        shares.append(_shares(getattr(phenotype, trait, _AVERAGE), anchors))
    return np.prod(np.where(mask > 0, np.concatenate(shares), 1.0), axis=1)


def _shares(value: float, anchors: np.ndarray) -> np.ndarray:
    """Linear interpolation weights (summing to one) of the two anchors around `value`."""
    return np.array([np.interp(value, anchors, at_anchor) for at_anchor in np.eye(len(anchors))])
