"""Rasterises triangles onto pixels or texels, and computes what a camera sees of a mesh.  Uses NumPy only."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

import camera_utils

CHUNK = 2**21  # candidates processed together, about 200 MB
EDGE = 1e-6  # how far outside a triangle still counts as on its edge


class Hits(NamedTuple):
    """Pixel centres inside triangles, one per row: row, column, triangle and barycentric coordinates [M, 3]."""

    rows: np.ndarray
    columns: np.ndarray
    faces: np.ndarray
    weights: np.ndarray


def rasterize(corners: np.ndarray, height: int, width: int, edge: float = EDGE) -> Iterator[Hits]:
    """Yield all pixel centres inside triangles `corners` [F, 3, 2] in parts (x, y in pixels; the first centre is at 0.5).

    A pixel is inside if its barycentric coordinates are at least -`edge`.  A negative `edge` keeps a distance from the sides.
    """
    low = np.ceil(np.nan_to_num(corners.min(axis=1), nan=0.0) - 0.5).clip(0, [width, height]).astype(np.int64)
    high = np.floor(np.nan_to_num(corners.max(axis=1), nan=-1.0) - 0.5).clip(-1, [width - 1, height - 1]).astype(np.int64)
    extent = (high - low + 1).clip(0)
    counts = extent[:, 0] * extent[:, 1]
    start, ends = 0, counts.cumsum()
    while start < len(corners):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        yield _inside(corners, low, extent, counts, np.arange(start, stop), edge)
        start = stop


def _inside(
    corners: np.ndarray, low: np.ndarray, extent: np.ndarray, counts: np.ndarray, faces: np.ndarray, edge: float
) -> Hits:
    face = np.repeat(faces, counts[faces])
    first = np.repeat(counts[faces].cumsum() - counts[faces], counts[faces])
    row, column = np.divmod(np.arange(len(face)) - first, extent[face, 0].clip(1))
    row, column = row + low[face, 1], column + low[face, 0]
    a, b, c = (corners[face, corner] for corner in range(3))
    place = np.stack([column + 0.5, row + 0.5], axis=1)

    def area(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    whole = area(a, b, c)
    flat = np.abs(whole) < 1e-12
    whole = np.where(flat, 1.0, whole)
    weights = np.stack([area(place, b, c), area(a, place, c), area(a, b, place)], axis=1) / whole[:, None]
    inside = (weights >= -edge).all(axis=1) & ~flat
    return Hits(row[inside], column[inside], face[inside], weights[inside])


def project(label: torch.Tensor, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points [P, 3] of the world into the picture of label [1, 25].  Returns (x, y) [P, 2] in [0, 1] and depths [P]."""
    places, depth = camera_utils.project_points(label.cpu().double(), torch.as_tensor(points, dtype=torch.float64))
    return places[0].numpy(), depth[0].numpy()


def depth_buffer(label: torch.Tensor, vertices: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Depth [size, size] along the viewing direction of a mesh seen by the camera `label` [1, 25]; infinity where empty."""
    places, depth = project(label, vertices)
    inverse = 1 / depth[faces]  # linear in the picture, unlike depth
    buffer = np.full(size * size, np.inf)
    for hits in rasterize(places[faces] * size, size, size):
        seen = 1 / (inverse[hits.faces] * hits.weights).sum(axis=1)
        np.minimum.at(buffer, hits.rows * size + hits.columns, seen)
    return buffer.reshape(size, size)
