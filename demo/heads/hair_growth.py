"""Grows hair on a head: guide strands step by step, and then the strands between them.

A guide leaves the skin, turns toward the direction in which its style is combed and, further out, downward.  After each step it
is pushed out of skin and cloth, turned away from the face and kept inside the frame of the picture.  The many other strands
follow the guides around their roots.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .geometry import Mesh, smoothstep, tangential, unit, value_noise
from .hair_strands import Obstacle, Strands, curl, resample, shaded, tapered
from .hair_styles import HairStyle, HairTraits

GUIDES = 1_500
SKIN_MARGIN = 0.0008  # metres; the least distance of hair from skin and cloth
ROOT_DEPTH = 0.0006  # metres under the skin at which strands begin
TIE_RADIUS = 0.020  # metres; within this distance of the knot of tied hair, a strand has arrived

_BEND = 0.24  # how far a strand turns toward its goal from one rendered point to the next
_DOWN = np.array([0.0, -1.0, 0.0])
_COLLAR = -0.105  # height in metres above the eyes below which clothes begin, if no mesh is given
_CLOTH_THICKNESS = 0.013

# The frame of the pictures in world units.  Hair beyond `_HELD_FROM` of it is drawn inward, progressively.
_FRAME_RADIUS, _FRAME_HEIGHT = 0.285, 0.29
_HELD_FROM = 0.84
_SHARPEST_TURN = 0.03  # metres: assumed radius of curvature of the body, where its side next to a strand must be guessed
_LOCKS = 0.03  # metres across the scalp over which curls stay in phase
_ROUNDNESS = 2.6  # exponent of the frame's shape: 2 is an ellipsoid, larger is more like a box
# A skull that fills more than this share gets a larger frame: up to what pictures show, and then the least possible.
_SKULL_REACH, _LEAST_SKULL_REACH = 0.93, 0.95
_LARGEST_ROOM = 1.05

# The space in front of the face that stays free: half its angle (degrees about the head's axis) by height.
_FACE_HEIGHTS = [-0.2, -0.06, 0.0, 0.035, 0.06, 0.08]
_FACE_ANGLES = [72, 66, 62, 48, 20, 0]
_FACE_AXIS_Z = -0.088  # of the head's axis relative to the eyes
_FRINGE_ANGLE = np.radians(46)


class Site:
    """A head as seen by hair: the position of the eyes, obstacles, and the space that the frame leaves."""

    def __init__(self, head, cloth: Mesh | None = None):
        self.eye = np.asarray(head.eye_middle, np.float64)
        self.placement = head.placement
        self.vertices = np.asarray(head.coarse, np.float64)
        self.normals = np.asarray(head.coarse_normals, np.float64)
        self.body = Obstacle(self.vertices, self.normals)
        self.cloth = None if cloth is None else Obstacle.from_mesh(cloth)
        self.room = 1.0
        skull = self.vertices[self.vertices[:, 1] > self.eye[1]]
        skull_reach = self.reach(self.placement.to_world(skull)).max()
        self.room = max(1.0, min(skull_reach / _SKULL_REACH, _LARGEST_ROOM), skull_reach / _LEAST_SKULL_REACH)
        self.volume = float(np.interp(skull_reach, [0.90, 1.15], [1.0, 0.5]))  # fullness of hair in the space around the skull

    def settle(self, points: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move points [n, 3] into free space, at `margin` [n] from the skin.

        Also returns their distances [n] from skin or cloth, and the normals [n, 3] there.
        """
        thickness = np.zeros(len(points))
        if self.cloth is None:
            thickness = _CLOTH_THICKNESS * smoothstep(0.0, -0.012, points[:, 1] - self.eye[1] - _COLLAR)
            margin = margin + thickness
        points, distances, normals = self.body.push_out(points, margin)
        held = self.hold_in_frame(points)
        moved = np.abs(held - points).max(axis=1) > 1e-5
        if moved.any():
            thin = (0.5 * (margin + thickness))[moved]  # keeps the layers of hair apart
            held[moved], distances[moved], normals[moved] = self.body.push_out(held[moved], thin)
        low = held[:, 1] < self.eye[1] - 0.06
        if self.cloth is not None and low.any():
            held[low], above, outward = self.cloth.push_out(held[low], 2 * SKIN_MARGIN)
            nearer = above < distances[low]
            distances[low] = np.where(nearer, above, distances[low])
            normals[low] = np.where(nearer[:, None], outward, normals[low])
        return held, distances - thickness, normals

    def reach(self, world: np.ndarray) -> np.ndarray:
        """How far points [n, 3] (world units) fill the frame from their worst side: 1 at its edge, above or beside the eyes."""
        radius = np.hypot(world[:, 0], world[:, 2]) / (_FRAME_RADIUS * self.room)
        height = np.clip(world[:, 1], 0, None) / (_FRAME_HEIGHT * self.room)
        return (radius**_ROUNDNESS + height**_ROUNDNESS) ** (1 / _ROUNDNESS)

    def hold_in_frame(self, points: np.ndarray, held_from: float = _HELD_FROM) -> np.ndarray:
        """Draw points [n, 3] beyond `held_from` of the frame toward the cameras' axis of rotation, so that they stay inside."""
        world = self.placement.to_world(points)
        reach = np.maximum(self.reach(world), 1e-6)
        rest = 1 - held_from
        held = np.where(reach > held_from, held_from + rest * np.tanh((reach - held_from) / rest), reach)
        inward = world * (held / reach - 1)[:, None]
        inward[:, 1] = np.minimum(inward[:, 1], 0)
        return self.placement.from_world(world + inward)


@dataclass(frozen=True)
class ScalpPoints:
    """Roots of strands: points and normals [n, 3]; azimuth, and height above the person's hairline `edge` [n]."""

    points: np.ndarray
    normals: np.ndarray
    azimuth: np.ndarray
    edge: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, which) -> "ScalpPoints":
        return ScalpPoints(self.points[which], self.normals[which], self.azimuth[which], self.edge[which])


@dataclass(frozen=True)
class Guides:
    """Guide strands [n, k, 3], their distances [n, k] from the body and its normals there [n, k, 3], and the fractional indices
    [n] of the points where they are cut.
    """

    points: np.ndarray
    clearance: np.ndarray
    normals: np.ndarray
    ends: np.ndarray


def guide_lengths(style: HairStyle, traits: HairTraits, site: Site, roots: ScalpPoints, rng: np.random.Generator) -> np.ndarray:
    """Lengths [n] in metres, interpolated by height from sides to top, and shorter along the edge of short hair."""
    top = smoothstep(0.035, 0.085, roots.points[:, 1] - site.eye[1])
    lengths = style.length_sides + (style.length_top - style.length_sides) * top
    lengths *= traits.length * rng.uniform(0.82, 1.08, len(roots))
    if style.lift > 0.8:  # the hair stands off the head
        lengths *= 0.4 + 0.6 * site.volume
    if style.length_sides < 0.1:
        lengths *= np.clip(0.35 + roots.edge / 0.03, 0.35, 1)
    return lengths


def grow_guides(style: HairStyle, traits: HairTraits, site: Site, roots: ScalpPoints, rng: np.random.Generator) -> Guides:
    """Grow one guide from each root."""
    n, steps = len(roots), style.steps
    lengths = guide_lengths(style, traits, site, roots, rng)
    stride = (lengths / (steps - 1))[:, None]
    margin = traits.volume * site.volume * rng.uniform(*style.margin, n) * np.clip(roots.edge / 0.02, 0.15, 1)
    own_way = rng.normal(0, 1, (n, 3))
    comber = Comber(style, traits, site, roots)
    bend = min(_BEND * style.points / steps, 0.5)

    points = np.zeros((n, steps, 3))
    clearance = np.zeros((n, steps))
    outward = np.zeros((n, steps, 3))
    points[:, 0] = roots.points - roots.normals * ROOT_DEPTH
    here, normals, distances = roots.points.copy(), roots.normals, np.zeros(n)
    first = style.lift * normals + 0.5 * style.comb * comber.direction(here, normals) + rng.normal(0, 0.1, (n, 3))
    heading = unit(first)
    ends = np.full(n, steps - 1.0)
    for step in range(1, steps):
        pull = style.comb * (1.0 if style.combing == "tie" else max(1 - step / (0.55 * steps), 0))
        weight = style.gravity * np.clip(step / (0.2 * steps), 0.2, 1)
        goal = pull * comber.direction(here, normals) + weight * comber.fall(here, normals, distances) + 0.05 * own_way
        goal -= normals * (style.cling * np.clip((distances - margin) / 0.01, 0, 1))[:, None]
        heading = unit(heading + bend * goal)
        there = here + heading * stride
        if style.length_top > 0.05:
            there, ends = keep_off_face(there, step, ends, style, traits, site, roots.azimuth)
        there, distances, normals = site.settle(there, np.maximum(margin * min(1, step / 3), SKIN_MARGIN))
        # The step keeps its length, and some of the turn caused by obstacles.
        taken = unit(there - here)
        there = here + taken * stride
        heading = unit(heading + taken)
        ends = np.minimum(ends, comber.ends(there, step, rng))
        points[:, step], clearance[:, step], outward[:, step] = there, distances, normals
        here = there
    return Guides(points, clearance, outward, ends)


class Comber:
    """The directions in which a style's hair is combed and falls."""

    def __init__(self, style: HairStyle, traits: HairTraits, site: Site, roots: ScalpPoints):
        self.style, self.traits, self.site = style, traits, site
        self.turn = 1.0 if traits.parting > 0 else -1.0
        self.whorl = site.eye + [0.008 * self.turn, 0.105, -0.155]
        self.parting_x = site.eye[0] + traits.parting
        self.side = np.where(roots.points[:, 0] > self.parting_x, 1.0, -1.0)
        self.top = smoothstep(0.035, 0.085, roots.points[:, 1] - site.eye[1])[:, None]
        self.tie = tie_point(site, traits)
        # Hair from the front half of the head may fall in front of the shoulder, the rest behind it.
        self.drape = np.where(np.abs(roots.azimuth) < 1.1, 1.0, -1.0)

    def direction(self, here: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Combing directions [n, 3] along the skin at points [n, 3] with normals [n, 3]."""
        down = 1 - self.top
        if self.style.combing == "tie":
            # In front, hair first goes up and over the head, because the shortest path is across the face.
            front = np.clip((here[:, 2] - self.tie[2] - 0.08) / 0.08, 0, 1)
            return tangential(self.tie - here + front[:, None] * [0, 0.16, 0], normals)
        if self.style.combing == "back":
            return tangential(np.broadcast_to([0, -0.1, -1.0], here.shape), normals) + 0.3 * down * _DOWN
        away = self._around_whorl(here, normals)
        if self.style.combing == "side":
            across = tangential(np.stack([self.side, 0 * self.side, np.full(len(here), -0.55)], axis=1), normals)
            return across * self.top + (0.6 * away + 0.5 * _DOWN) * down
        if self.style.combing == "parted":
            side = np.where(here[:, 0] > self.parting_x, 0.9, -0.9)
            across = tangential(np.stack([side, 0 * side, np.full(len(here), -0.75)], axis=1), normals)
            front = np.clip((here[:, 2] - self.whorl[2] - 0.02) / 0.05, 0, 1)[:, None]
            return unit(across * front + away * (1 - front))
        return away

    def _around_whorl(self, here: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Directions away from the whorl: a swirl near it, and hardly any combing at its centre, which would be bare."""
        offset = here - self.whorl
        away = tangential(offset, normals)
        far = smoothstep(0.0, 0.045, np.linalg.norm(offset, axis=1))[:, None]
        return unit(away + (1 - far) * self.turn * np.cross(normals, away)) * (0.25 + 0.75 * far)

    def fall(self, here: np.ndarray, normals: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Directions [n, 3] in which weight pulls a strand: down, or off a shoulder to the front or the back."""
        on_shoulder = (here[:, 1] < self.site.eye[1] - 0.09) & (distances < 0.02) & (normals[:, 1] > 0.25)
        slide = np.zeros_like(here)
        slide[:, 2] = 0.8 * self.drape * on_shoulder
        return _DOWN + slide

    def ends(self, there: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        """Fractional indices [n] at which strands that have reached `there` end; the largest possible one if they continue."""
        ends = np.full(len(there), self.style.steps - 1.0)
        if self.style.cut is not None:
            height = self.site.eye[1] + self.style.cut + self.traits.cut + rng.normal(0, 0.003, len(there))
            ends[there[:, 1] < height] = step - 0.3
        if self.style.combing == "tie":
            ends[np.linalg.norm(there - self.tie, axis=1) < TIE_RADIUS] = step
        return ends


def tie_point(site: Site, traits: HairTraits) -> np.ndarray:
    """The knot [3] of tied hair: just off the back of the head, at this person's height."""
    height = site.eye[1] + traits.tie_height
    band = (np.abs(site.vertices[:, 0] - site.eye[0]) < 0.015) & (np.abs(site.vertices[:, 1] - height) < 0.006)
    back = site.vertices[band, 2].min() if band.any() else site.eye[2] - 0.17
    return np.array([site.eye[0], height, back - 0.010])


def keep_off_face(
    points: np.ndarray, step: int, ends: np.ndarray, style: HairStyle, traits: HairTraits, site: Site, azimuth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate points [n, 3] about the head's axis until they are beside the face.  A fringe is cut where it reaches the face."""
    side, height, ahead = (points - site.eye - [0, 0, _FACE_AXIS_Z]).T
    radius, angle = np.hypot(side, ahead), np.arctan2(side, ahead)
    if style.fringe:
        heights, angles = [-0.2, -0.06, 0.0, traits.fringe - 0.002, traits.fringe], [72, 66, 60, 52, 0]
    else:
        heights, angles = _FACE_HEIGHTS, _FACE_ANGLES
    limit = np.radians(np.interp(height, heights, angles)) * traits.opening
    inside = (np.abs(angle) < limit) & (height < 0.08)
    if style.fringe:
        short = inside & (np.abs(angle) < _FRINGE_ANGLE) & (np.abs(azimuth) < 1.0)
        ends = np.where(short, np.minimum(ends, step - 0.5), ends)
    turned = np.where(angle >= 0, 1, -1) * np.minimum(limit, np.abs(angle) + 0.16)
    # A head is longer than wide: at a constant distance from the axis, hair would stand off beside the face.
    radius = radius * (1 - 0.25 * (np.abs(turned) - np.abs(angle)) * inside)
    beside = np.stack([radius * np.sin(turned), height, radius * np.cos(turned)], axis=1) + site.eye + [0, 0, _FACE_AXIS_Z]
    return np.where(inside[:, None], beside, points), ends


def grow_strands(
    style: HairStyle, traits: HairTraits, site: Site, roots: ScalpPoints, guides: Guides, rng: np.random.Generator
) -> list[Strands]:
    """Grow strands from all roots; the first roots are those of the guides."""
    n, count = len(roots), len(guides.points)
    shares = np.linspace(0, style.steps - 1, style.points)
    before = np.minimum(shares.astype(int), style.steps - 2)
    lines = resample(guides.points, np.full(count, style.steps - 1.0), style.points)
    ends = guides.ends / (style.steps - 1)

    first, second = cKDTree(roots.points[:count]).query(roots.points, k=2)[1].T
    # Neighbours follow each other, which makes searches for the nearest vertex twice as fast.
    order = np.argsort(first, kind="stable")
    guide_roots = roots.points[:count]
    roots, first, second = roots[order], first[order], second[order]
    # Guides that diverge (at a parting, around the face) are not mixed.
    together = np.linalg.norm(lines[first, -1] - lines[second, -1], axis=1) < 0.035
    share = np.where(together, rng.uniform(0, 0.5, n), 0)[:, None]
    spread = (1 - style.clump * rng.uniform(0.5, 1, n))[:, None, None]
    u = np.linspace(0, 1, style.points)[None, :, None]
    offset = roots.points - (guide_roots[first] * (1 - share) + guide_roots[second] * share)
    stray = np.where(rng.random(n) < 0.04, 0.010, 0.0022) * min(1, style.length_top / 0.06)
    points = lines[first] * (1 - share[..., None]) + lines[second] * share[..., None]
    points += offset[:, None] * (1 - u**1.3 * (1 - spread)) + (rng.normal(0, 1, (n, 3)) * stray[:, None])[:, None] * u**1.2
    points[:, 0] = roots.points - roots.normals * ROOT_DEPTH
    if style.curl[0] > 0:
        # Neighbouring locks wave together, but wind in either direction.
        phase = 3 * np.pi * value_noise(guide_roots, _LOCKS, rng, octaves=1)[first] + rng.normal(0, 0.6, n)
        # Less curl at the hairline, or locks would swing into the face.
        amplitude = style.curl[0] * traits.wave * (0.3 + 0.7 * smoothstep(0, 0.03, roots.edge))
        wavelength = style.curl[1] * rng.uniform(0.85, 1.15, count)[first] * rng.choice([-1, 1], count)[first]
        points = curl(points, amplitude, wavelength, phase)
    strayed = site.hold_in_frame(points.reshape(-1, 3), 0.96).reshape(points.shape) - lines[first]
    clearance = np.minimum(guides.clearance[:, before], guides.clearance[:, before + 1])[first]
    clearance += np.einsum("nkc,nkc->nk", strayed, guides.normals[:, before][first])
    clearance -= np.sum(strayed**2, axis=2) / (2 * _SHARPEST_TURN)
    points[:, 1:] = lines[first, 1:] + strayed[:, 1:]
    points = clear_strands(points, clearance, site)

    ends = (ends[first] * (1 - share[:, 0]) + ends[second] * share[:, 0]) * rng.uniform(0.90, 1.02, n)
    ends, radii = refine_edge(ends, style, roots, rng)
    points = resample(points, ends * (style.points - 1), style.points)
    return shaded(points, tapered(radii, style.points), np.array(traits.colour), rng, traits.grey)


def clear_strands(points: np.ndarray, clearance: np.ndarray, site: Site) -> np.ndarray:
    """Push strands [n, k, 3] out of the body where they may be inside, and leave their roots in place.

    `clearance` [n, k] is a lower bound of their distance; points may be inside if it is below the margin.
    """
    points = points.copy()
    doubtful = clearance < 2 * SKIN_MARGIN
    doubtful[:, 0] = False
    points[doubtful] = site.settle(points[doubtful], np.full(doubtful.sum(), SKIN_MARGIN))[0]
    return points


def refine_edge(
    ends: np.ndarray, style: HairStyle, roots: ScalpPoints, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ends [n] (share of the strand) and largest radii [n]: finer at the hairline, where some hair is short and new."""
    n = len(roots)
    edge = smoothstep(0.0, 0.012, roots.edge)
    young = rng.random(n) < 0.35 * (1 - edge)
    ends = np.where(young, ends * rng.uniform(0.1, 0.4, n), ends)
    return ends, style.radius * rng.uniform(0.8, 1.2, n) * (0.6 + 0.4 * edge)


def scalp_points(template, head, chosen: np.ndarray, edge: np.ndarray) -> ScalpPoints:
    """The chosen scalp roots [n] on a head whose hairline is `edge` [n] metres below them."""
    roots = template.scalp_roots[chosen]
    normals = unit(roots.at(head.coarse_normals).astype(np.float64))
    return ScalpPoints(roots.at(head.coarse).astype(np.float64), normals, template.scalp_azimuth[chosen], edge)
