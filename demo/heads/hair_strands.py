"""Strands of hair, brows and beards: how they stay outside of the body, and measures that check it."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .geometry import Mesh, unit, vertex_normals

# The frame of a picture in world units: half its width relative to the distance (`camera_utils.FOCAL_LENGTH` refers to the
# whole width), and the distance of the camera from the origin.
FRAME_SLOPE = 0.5 / 4.2647
CAMERA_RADIUS = 2.7
# A shape of the renderer should have fewer segments than this, because larger ones have crashed it.
MAX_SEGMENTS = 150_000
# A point farther than this (metres) from a surface is considered free of it, on either side.
_REACH = 0.025
_GREY = np.array([0.30, 0.29, 0.28])  # linear albedo of grey strands


@dataclass(frozen=True)
class Strands:
    """Many strands of one colour: points [n, k, 3] and radii [n, k] in metres, head space; colour [3] as linear albedo."""

    points: np.ndarray
    radii: np.ndarray
    colour: np.ndarray


class Obstacle:
    """A surface that strands must not enter.  Nearby, the signed distance is that to the plane of the nearest vertex."""

    def __init__(self, vertices: np.ndarray, normals: np.ndarray):
        """Vertices [n, 3] in metres, dense compared with their curvature, and their outward unit normals."""
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.normals = np.ascontiguousarray(normals, np.float64)
        self.tree = cKDTree(self.vertices)

    @classmethod
    def from_mesh(cls, mesh: Mesh) -> "Obstacle":
        """The part of a mesh that its faces use."""
        used = np.unique(mesh.faces)
        return cls(mesh.vertices[used], vertex_normals(mesh.vertices, mesh.faces)[used])

    def signed_distances(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances [n] of points [n, 3], negative inside (`_REACH` if farther), and the normals [n, 3] there."""
        distances, nearest = self.tree.query(points, distance_upper_bound=_REACH)
        near = np.isfinite(distances)
        nearest = np.where(near, nearest, 0)
        normals = np.where(near[:, None], self.normals[nearest], 0.0)
        heights = np.einsum("nc,nc->n", points - self.vertices[nearest], normals)
        return np.where(near, heights, _REACH), normals

    def push_out(self, points: np.ndarray, margin: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move points [n, 3] out to `margin` [n] above the surface.  Returns also new distances [n] and normals [n, 3]."""
        distances, normals = self.signed_distances(points)
        push = np.clip(margin - distances, 0, _REACH)
        return points + normals * push[:, None], distances + push, normals


def resample(points: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Cut strands [n, k, c] at their fractional indices `ends` [n] (0..k − 1) and resample to `count` points: [n, count, c]."""
    k = points.shape[1]
    positions = np.linspace(0, 1, count) * np.clip(ends, 0.3, k - 1)[:, None]
    before = np.minimum(positions.astype(int), k - 2)
    share = (positions - before)[..., None]
    rows = np.arange(len(points))[:, None]
    return points[rows, before] * (1 - share) + points[rows, before + 1] * share


def curl(points: np.ndarray, amplitude: np.ndarray, wavelength: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Wind strands [n, k, 3] around their own line: amplitude and wavelength [n] in metres (negative: the other direction),
    phase [n] in radians.

    The curl fades in over the first 2 cm, so that the strand starts at its root.
    """
    along = unit(np.gradient(points, axis=1))
    # Frames do not jump if they are based on a fixed direction that hair never follows for long.
    across = unit(np.cross(along, [0.31, 0.2, 0.93]))
    lengths = np.cumsum(np.linalg.norm(np.diff(points, axis=1, prepend=points[:, :1]), axis=2), axis=1)
    angles = (2 * np.pi * lengths / wavelength[:, None] + phase[:, None])[..., None]
    reach = (amplitude[:, None] * np.clip(lengths / 0.02, 0, 1))[..., None]
    return points + reach * (across * np.cos(angles) + np.cross(along, across) * np.sin(angles))


def tapered(radii: np.ndarray, count: int, tip: float = 0.25) -> np.ndarray:
    """Radii [n, count] of strands with largest radii `radii` [n]: slightly finer at the root, `tip` times that at the end."""
    return radii[:, None] * np.interp(np.linspace(0, 1, count), [0, 0.3, 0.8, 1], [0.9, 1, 0.8, tip])


def shaded(
    points: np.ndarray, radii: np.ndarray, colour: np.ndarray, rng: np.random.Generator, grey: float = 0.0
) -> list[Strands]:
    """Split strands [n, k, 3] into shades of a colour [3], from 0.75 to 1.3 of it, and make a share `grey` of them greyer.

    There are at least three shades, and enough to keep each below `MAX_SEGMENTS`.
    """
    count, k = radii.shape
    groups = max(3, math.ceil(count * k * (1 - grey) / MAX_SEGMENTS))
    colours = [np.clip(np.asarray(colour) * shade, 0, 0.9) for shade in np.linspace(0.75, 1.3, groups)]
    group = rng.integers(0, groups, count)
    if grey > 0:
        group = np.where(rng.random(count) < grey, groups, group)
        colours.append(0.5 * (np.asarray(colour) + _GREY))
    chosen = [(group == number, tint) for number, tint in enumerate(colours)]
    return [
        Strands(points[mine].astype(np.float32), radii[mine].astype(np.float32), tint) for mine, tint in chosen if mine.any()
    ]


def share_inside(strands: list[Strands], body: Obstacle, depth: float = 0.0005) -> float:
    """Share of the strands' points deeper than `depth` metres under a surface, not counting roots (the first two points)."""
    points = [each.points[:, 2:].reshape(-1, 3) for each in strands]
    if not points:
        return 0.0
    distances, _ = body.signed_distances(np.concatenate(points).astype(np.float64))
    return float(np.mean(distances < -depth))


def share_outside_frame(world_points: np.ndarray, pitch: float = 0.0, shoulders: float = -0.25, views: int = 24) -> float:
    """Share of points [n, 3] (world units) above `shoulders` that lie outside the frame of any of `views` cameras around.

    The cameras have a pitch in radians.  The lower edge of the frame does not count, since long hair leaves a portrait there.
    """
    points = world_points[world_points[:, 1] > shoulders]
    if not len(points):
        return 0.0
    outside = np.zeros(len(points), bool)
    for yaw in np.arange(views) * 2 * np.pi / views:
        right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
        back = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        edge = FRAME_SLOPE * (CAMERA_RADIUS - points @ back)
        outside |= (np.abs(points @ right) > edge) | (points @ np.cross(back, right) > edge)
    return float(outside.mean())
