"""Strands: what hair, brows and beards are made of; what keeps them out of the body, and the measures that check it."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .geometry import Mesh, unit, vertex_normals

# The frame of a picture, in world units: half its width over the distance to it (`camera_utils.FOCAL_LENGTH` is the
# whole width's), and how far the camera is from the origin.
FRAME_SLOPE = 0.5 / 4.2647
CAMERA_RADIUS = 2.7
# A shape of the renderer should hold fewer segments than this (larger ones have crashed it).
MAX_SEGMENTS = 150_000
# Beyond this distance (metres) from a surface a point is taken to be free of it, on whichever side.
_REACH = 0.025
_GREY = np.array([0.30, 0.29, 0.28])  # linear albedo of grey strands


@dataclass(frozen=True)
class Strands:
    """Many strands of one colour: points [n, k, 3] and radii [n, k] in metres, head space; colour [3]: linear albedo."""

    points: np.ndarray
    radii: np.ndarray
    colour: np.ndarray


class Obstacle:
    """A surface that strands must stay out of: near it, the signed distance is that to the plane of the nearest vertex."""

    def __init__(self, vertices: np.ndarray, normals: np.ndarray):
        """Vertices [n, 3] in metres, close together compared with their curvature, and their outward unit normals."""
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.normals = np.ascontiguousarray(normals, np.float64)
        self.tree = cKDTree(self.vertices)

    @classmethod
    def from_mesh(cls, mesh: Mesh) -> "Obstacle":
        """The part of a mesh that its faces use."""
        used = np.unique(mesh.faces)
        return cls(mesh.vertices[used], vertex_normals(mesh.vertices, mesh.faces)[used])

    def signed_distances(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances [n] of points [n, 3], negative inside (`_REACH` where it is further), and the normals [n, 3] there."""
        distances, nearest = self.tree.query(points, distance_upper_bound=_REACH)
        near = np.isfinite(distances)
        nearest = np.where(near, nearest, 0)
        normals = np.where(near[:, None], self.normals[nearest], 0.0)
        heights = np.einsum("nc,nc->n", points - self.vertices[nearest], normals)
        return np.where(near, heights, _REACH), normals

    def push_out(self, points: np.ndarray, margin: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [n, 3] moved out to `margin` [n] above the surface, with their distances [n] then and normals [n, 3]."""
        distances, normals = self.signed_distances(points)
        push = np.clip(margin - distances, 0, _REACH)
        return points + normals * push[:, None], distances + push, normals


def resample(points: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Strands [n, k, c] cut at their fractional points `ends` [n] (0..k − 1), with `count` points each: [n, count, c]."""
    k = points.shape[1]
    positions = np.linspace(0, 1, count) * np.clip(ends, 0.3, k - 1)[:, None]
    before = np.minimum(positions.astype(int), k - 2)
    share = (positions - before)[..., None]
    rows = np.arange(len(points))[:, None]
    return points[rows, before] * (1 - share) + points[rows, before + 1] * share


def curl(points: np.ndarray, amplitude: np.ndarray, wavelength: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Strands [n, k, 3] wound about their own line: amplitude, wavelength [n] in metres (negative: the other way
    around), phase [n] in radians.

    The first 2 cm run in from nothing, so that the strand starts at its root.
    """
    along = unit(np.gradient(points, axis=1))
    # Any fixed direction that no head of hair follows over a length gives frames that do not jump.
    across = unit(np.cross(along, [0.31, 0.2, 0.93]))
    lengths = np.cumsum(np.linalg.norm(np.diff(points, axis=1, prepend=points[:, :1]), axis=2), axis=1)
    angles = (2 * np.pi * lengths / wavelength[:, None] + phase[:, None])[..., None]
    reach = (amplitude[:, None] * np.clip(lengths / 0.02, 0, 1))[..., None]
    return points + reach * (across * np.cos(angles) + np.cross(along, across) * np.sin(angles))


def tapered(radii: np.ndarray, count: int, tip: float = 0.25) -> np.ndarray:
    """Radii [n, count] of strands with their greatest `radii` [n]: a little finer at the root, `tip` of it at the end."""
    return radii[:, None] * np.interp(np.linspace(0, 1, count), [0, 0.3, 0.8, 1], [0.9, 1, 0.8, tip])


def shaded(
    points: np.ndarray, radii: np.ndarray, colour: np.ndarray, rng: np.random.Generator, grey: float = 0.0
) -> list[Strands]:
    """Strands [n, k, 3] in shades of a colour [3], from three quarters to 1.3 of it, and a share `grey` of them greyed.

    As many shades as keep each below `MAX_SEGMENTS`, three at least.
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
    """Share of the strands' points deeper than `depth` metres under a surface, roots (the first two points) left out."""
    points = [each.points[:, 2:].reshape(-1, 3) for each in strands]
    if not points:
        return 0.0
    distances, _ = body.signed_distances(np.concatenate(points).astype(np.float64))
    return float(np.mean(distances < -depth))


def share_outside_frame(world_points: np.ndarray, pitch: float = 0.0, shoulders: float = -0.25, views: int = 24) -> float:
    """Share of points [n, 3] (world units) above `shoulders` that some of `views` cameras around, at a pitch in radians, miss.

    The lower edge of the frame does not count: long hair leaves a portrait there.
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
