"""Shared geometry: vectors, normals, subdivision and noise."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_NOISE_CELLS = 64  # period of `value_noise` in cells; no head spans that many cells of a useful size


@dataclass(frozen=True)
class Mesh:
    """A surface with optional attributes at its vertices.

    vertices [n, 3]: metres in head space; faces [f, 3 or 4]: vertex indices, counter-clockwise seen from outside;
    colours [n, 3]: linear albedo in 0..1, or None; opacity [n]: 0..1, or None if everything is solid.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray | None = None
    opacity: np.ndarray | None = None


def unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise vectors [..., 3].  Zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def tangential(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Unit vectors along the components of `vectors` [..., 3] orthogonal to the unit `normals` [..., 3]."""
    return unit(vectors - np.sum(vectors * normals, axis=-1, keepdims=True) * normals)


def smoothstep(lo: float, hi: float, x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 below `lo` to 1 above `hi`, or the reverse if `lo` is above `hi`."""
    t = np.clip((np.asarray(x) - lo) / (hi - lo), 0, 1)
    return t * t * (3 - 2 * t)


def triangles(faces: np.ndarray) -> np.ndarray:
    """Triangles [T, 3] of faces [F, 3 or 4]: the first halves of all quads, followed by the second halves."""
    if faces.shape[1] == 3:
        return faces
    return np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [n, 3] of vertices [n, 3]: area-weighted means over the adjacent faces; zero for vertices without a face."""
    corners = triangles(faces)
    a, b, c = (vertices[corners[:, k]] for k in range(3))
    doubled_areas = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        weights = np.tile(doubled_areas[:, axis], 3)
        normals[:, axis] = np.bincount(corners.T.ravel(), weights, minlength=len(vertices))
    return unit(normals).astype(vertices.dtype)


def catmull_clark(faces: np.ndarray, n: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One step of Catmull–Clark subdivision of quads [F, 4] over `n` vertices.

    Returns a matrix [n + edges + F, n] that maps old to new vertices (the moved old ones first, then one per edge, then one per
    face; rows sum to one), and the new faces [4 F, 4].  An open border becomes a cubic B-spline.
    """
    faces = np.asarray(faces)
    face_count = len(faces)
    sides = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    edges, edge_of_side, face_counts = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    edge_of_side = edge_of_side.reshape(face_count, 4)
    edge_count = len(edges)

    face_rows = np.repeat(np.arange(face_count), 4)
    edge_rows = np.repeat(np.arange(edge_count), 2)
    corner_in_face = _incidence(face_rows, faces.ravel(), (face_count, n))
    end_of_edge = _incidence(edge_rows, edges.ravel(), (edge_count, n))
    side_of_face = _incidence(edge_of_side.ravel(), face_rows, (edge_count, face_count))
    face_points = corner_in_face * 0.25
    mid_points = end_of_edge * 0.5

    border = face_counts == 1
    edge_points = sparse.diags(np.where(border, 1.0, 0.5)) @ mid_points
    edge_points += sparse.diags(np.where(border, 0.0, 0.5 / face_counts)) @ (side_of_face @ face_points)

    valence = np.bincount(faces.ravel(), minlength=n).astype(float)
    edge_valence = np.bincount(edges.ravel(), minlength=n).astype(float)
    on_border = np.zeros(n, bool)
    on_border[edges[border].ravel()] = True
    inner = ~on_border & (valence > 0)
    share = np.where(inner, 1 / np.maximum(valence, 1), 0.0)
    # Inside: (mean of the face points + 2 · mean of the edges' mid-points + (valence − 3) · the vertex) / valence.
    old_points = sparse.diags(share**2) @ (corner_in_face.T @ face_points)
    old_points += sparse.diags(2 * share / np.maximum(edge_valence, 1)) @ (end_of_edge.T @ mid_points)
    # On the border: half the vertex, and a quarter of each mid-point of its two border edges.
    old_points += sparse.diags(np.where(on_border, 0.25, 0.0)) @ (end_of_edge.T @ sparse.diags(border * 1.0) @ mid_points)
    old_points += sparse.diags(np.where(inner, (valence - 3) * share, np.where(on_border, 0.5, 1.0)))

    matrix = sparse.vstack([old_points, edge_points, face_points]).tocsr()
    next_edge = n + edge_of_side
    centre = np.broadcast_to((n + edge_count + np.arange(face_count))[:, None], faces.shape)
    new_faces = np.stack([faces, next_edge, centre, np.roll(next_edge, 1, axis=1)], axis=2).reshape(-1, 4)
    return matrix, new_faces


def _incidence(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)


def value_noise(points: np.ndarray, size: float, rng: np.random.Generator, octaves: int = 3) -> np.ndarray:
    """Smooth noise in -1..1 at points [n, 3]: grains of `size` (same unit), then of half the size at half the strength, …"""
    lattice = rng.random((_NOISE_CELLS,) * 3, dtype=np.float32)
    total = np.zeros(len(points))
    strengths = 0.5 ** np.arange(octaves)
    for octave, strength in enumerate(strengths):
        # The offset moves the centre of the head away from the origin, where all octaves would share a lattice point.
        position = points / size * 2**octave + 17
        cell = np.floor(position).astype(int)
        t = smoothstep(0, 1, position - cell)
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, t, 1 - t), axis=1)
            x, y, z = ((cell + corner) % _NOISE_CELLS).T
            total += strength * weight * lattice[x, y, z]
    return total / strengths.sum() * 2 - 1
