"""Unfolds a mesh onto a square: pieces that face one of six directions are projected without distortion and packed.

All pieces have the same scale, so texels have one size on the head.  No library is needed.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dnnlib import UserError
from meshes.raster import rasterize

DIRECTIONS = np.concatenate([np.eye(3), -np.eye(3)])
# Axes of the plane that faces each direction.  Mirroring does not matter for colours.
PLANES = ((1, 2), (2, 0), (0, 1)) * 2
PADDING = 2  # texels around each piece, so that blurring does not reach the next one
SMOOTHINGS = 8  # passes that smooth the directions over neighbours, so that pieces get large
LEAST_FACING = 0.2  # least cosine of a face to its direction, so that it keeps at least 1/5 of its texels
OVERLAP_ROUNDS = 8
INSIDE = -0.05  # barycentric; neighbours share their edges, which does not count as an overlap


class Atlas(NamedTuple):
    """A texture layout: corners of faces [F, 3, 2] (x, y in texels from the upper left), pieces of faces, side in texels."""

    corners: np.ndarray
    pieces: np.ndarray
    size: int


def unfold(vertices: np.ndarray, faces: np.ndarray, size: int) -> Atlas:
    """Lay out the faces [F, 3] of a mesh with `vertices` [V, 3] on a square of `size` texels, without overlaps.

    Raises UserError if the surface has too many pieces.
    """
    triangles = vertices[faces]
    neighbours = face_neighbours(faces)
    direction = _directions(triangles, neighbours)
    layer = np.zeros(len(faces), dtype=np.int64)
    for _ in range(OVERLAP_ROUNDS):
        atlas = _lay_out(triangles, neighbours, direction, layer, size)
        behind = _behind_another(atlas, triangles, direction)
        if not len(behind):
            return atlas
        layer[behind] += 1
    layer[behind] = layer.max() + 1 + np.arange(len(behind))  # each becomes a piece of its own
    return _lay_out(triangles, neighbours, direction, layer, size)


def face_neighbours(faces: np.ndarray) -> sparse.csr_matrix:
    """Which faces [F, 3] share an edge, as a symmetric matrix [F, F] of ones."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1).astype(np.int64)
    owner = np.tile(np.arange(len(faces)), 3)
    key = edges[:, 0] * (edges.max() + 1) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    same = np.nonzero(key[order][1:] == key[order][:-1])[0]
    a, b = owner[order[same]], owner[order[same + 1]]
    ones = np.ones(2 * len(a))
    return sparse.csr_matrix((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(len(faces), len(faces)))


def _directions(triangles: np.ndarray, neighbours: sparse.csr_matrix) -> np.ndarray:
    """Choose one of DIRECTIONS for each face: the one that its surroundings prefer, provided that the face itself faces it."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)
    facing = normals @ DIRECTIONS.T
    score = facing
    for _ in range(SMOOTHINGS):
        score = 0.5 * score + 0.5 * (neighbours @ score) / 3
    best = np.where(facing >= LEAST_FACING, score, -np.inf).argmax(axis=1)
    nowhere = (facing < LEAST_FACING).all(axis=1)  # faces without area
    best[nowhere] = score[nowhere].argmax(axis=1)
    for _ in range(SMOOTHINGS):  # lets single faces and thin rims join the piece that most of their neighbours belong to
        votes = neighbours @ np.eye(len(DIRECTIONS))[best]
        votes[facing < LEAST_FACING] = -1
        winner = votes.argmax(axis=1)
        best = np.where(votes.max(axis=1) >= 2, winner, best)
    return best


def _lay_out(
    triangles: np.ndarray, neighbours: sparse.csr_matrix, direction: np.ndarray, layer: np.ndarray, size: int
) -> Atlas:
    """Form pieces of neighbouring faces with one direction and layer, project each along its direction, and place it."""
    links = neighbours.tocoo()
    within = (direction[links.row] == direction[links.col]) & (layer[links.row] == layer[links.col])
    shape = neighbours.shape
    graph = sparse.coo_matrix((links.data[within], (links.row[within], links.col[within])), shape=shape)
    count, pieces = connected_components(graph, directed=False)
    flat = np.take_along_axis(triangles, np.array(PLANES)[direction][:, None, :], axis=2)
    low, high = np.full([count, 2], np.inf), np.full([count, 2], -np.inf)
    np.minimum.at(low, pieces, flat.min(axis=1))
    np.maximum.at(high, pieces, flat.max(axis=1))
    scale, places = _pack(high - low, size)
    corners = (flat - low[pieces][:, None]) * scale + places[pieces][:, None] + PADDING
    return Atlas(corners, pieces, size)


def _pack(extents: np.ndarray, size: int) -> tuple[float, np.ndarray]:
    """The largest scale at which boxes [P, 2] fit in rows on a square of `size` texels, and their upper left corners [P, 2]."""
    lowest, highest = 0.0, size / np.sqrt((extents[:, 0] * extents[:, 1]).sum()).clip(1e-12)
    places = None
    for _ in range(24):
        scale = 0.5 * (lowest + highest)
        found = _place_in_rows(np.ceil(extents * scale).astype(np.int64) + 2 * PADDING, size)
        if found is None:
            highest = scale
        else:
            lowest, places = scale, found
    if places is None:
        raise UserError(
            f"the surface is in {len(extents)} pieces, too many for a texture of {size}x{size}: lower --shape-res, or use "
            "--shape-format .ply or .obj"
        )
    return lowest, places


def _place_in_rows(boxes: np.ndarray, size: int) -> np.ndarray | None:
    """Place boxes [P, 2] in rows, tall ones first.  Returns their upper left corners [P, 2], or None if they do not fit."""
    if (boxes > size).any():
        return None
    places = np.zeros_like(boxes)
    x = y = row_height = 0
    for index in np.argsort(-boxes[:, 1], kind="stable"):
        width, height = boxes[index]
        if x + width > size:
            x, y, row_height = 0, y + row_height, 0
        if y + height > size:
            return None
        row_height = max(row_height, height)
        places[index] = x, y
        x += width
    return places


def _behind_another(atlas: Atlas, triangles: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Faces that lie behind another face of their own piece, such as those behind an ear."""
    height = (triangles.mean(axis=1) * DIRECTIONS[direction]).sum(axis=1)
    texels, faces = [], []
    for hits in rasterize(atlas.corners, atlas.size, atlas.size, edge=INSIDE):
        texels.append(hits.rows * atlas.size + hits.columns)
        faces.append(hits.faces)
    texel, face = np.concatenate(texels), np.concatenate(faces)
    order = np.lexsort([-height[face], texel])  # the top face of each texel comes first
    texel, face = texel[order], face[order]
    return np.unique(face[1:][texel[1:] == texel[:-1]])
