"""Shapes: the densities of a face on a lattice, their export as an .mrc volume, and the surface.

The lattice [R, R, R] spans the cube of side box_warp, corners included.  Axes 0, 1 and 2 are the world's x, y and z.
`meshes.head_file` writes shapes to files.
"""

import importlib
import os
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dnnlib import UserError, cli
from dnnlib.util import atomic_path
from torch_utils.device import free_memory
from training.triplane import Face, TriPlaneGenerator

VOLUME_FORMAT = ".mrc"
MESH_FORMATS = (".ply", ".obj", ".glb", ".stl")
SHAPE_FORMATS = (VOLUME_FORMAT, *MESH_FORMATS)
EMPTY_DENSITY = -1000.0  # what the border of a lattice is set to
DEFAULT_LEVEL = 10.0  # density (before softplus) of the surface: customary in this family of networks
POINT_BYTES = 2**11  # that looking up a point takes in plain PyTorch, at most
LEAST_POINTS, MOST_POINTS = 2**12, {"cpu": 2**16, "cuda": 2**20}  # looked up at a time; more bring nothing
MIN_FACES = 4


class Surface(NamedTuple):
    """A closed mesh: vertices [V, 3] in world units, outward-facing triangles [F, 3], unit normals [V, 3]."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray


def border_width(resolution: int) -> int:
    """Voxels to empty on each side of a lattice, because the grids are not trained near the sides of the box."""
    return int(30 * resolution / 256)


def points_at_a_time(device: torch.device) -> int:
    """Number of points to look up per call: the power of two that needs at most a quarter of the free memory."""
    fitting = free_memory(device) // (4 * POINT_BYTES)
    return min(MOST_POINTS[device.type], max(LEAST_POINTS, 2 ** (fitting.bit_length() - 1)))


@torch.no_grad()
def density_grid(G: TriPlaneGenerator, face: Face, resolution: int, show_progress: bool = True) -> np.ndarray:
    """Densities (before softplus) of one face, float32 [R, R, R].  The border is EMPTY_DENSITY and is not looked up."""
    border = border_width(resolution)
    side = resolution - 2 * border
    half = G.rendering_kwargs.box_warp / 2
    axis = torch.linspace(-half, half, resolution, device=face.ws.device)[border : border + side]
    inside = np.empty(side**3, dtype=np.float32)
    lines = max(1, points_at_a_time(axis.device) // side)  # along z, of one x and y each
    options: dict[str, Any] = dict(unit="voxel", unit_scale=True, desc="density", leave=False, disable=not show_progress)
    with cli.progress(total=inside.size, **options) as bar:
        for start in range(0, side**2, lines):
            line = torch.arange(start, min(start + lines, side**2), device=axis.device)[:, None]
            points = torch.stack(torch.broadcast_tensors(axis[line // side], axis[line % side], axis), dim=-1)
            densities = G.density(face.grids, points.flatten(0, 1)[None]).flatten().cpu().numpy()
            inside[start * side : start * side + len(densities)] = densities
            bar.update(len(densities))
    return np.pad(inside.reshape(side, side, side), border, constant_values=EMPTY_DENSITY)


def save_volume(densities: np.ndarray, path: str | os.PathLike) -> None:
    """Write a density lattice as an .mrc file with x flipped, the format in which this family of tools exchanges shapes."""
    import mrcfile  # here: nothing else needs it

    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as volume:
        volume.set_data(np.ascontiguousarray(densities[::-1]))


def surface(densities: np.ndarray, box_warp: float, level: float | None = None) -> Surface:
    """Extract the largest closed surface at density `level` of a lattice, without the pieces that float around it.

    `level` None means `usual_level`.  The world's axes are kept (y up, z toward the viewer, right-handed), so nothing is
    mirrored.  Raises UserError if there is no surface.
    """
    level = usual_level(densities) if level is None else level
    vertices, faces = _all_surfaces(densities, level)
    links = sparse.coo_matrix(
        (np.ones(3 * len(faces)), (faces.ravel(), faces[:, [1, 2, 0]].ravel())), shape=[len(vertices)] * 2
    )
    _, part = connected_components(links, directed=False)
    faces = faces[part[faces[:, 0]] == np.bincount(part[faces[:, 0]]).argmax()]
    if len(faces) < MIN_FACES:
        raise UserError("the head's surface is only a speck: choose another --shape-level")
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    vertices = vertices[used].astype(np.float64) * box_warp / (len(densities) - 1) - box_warp / 2
    return Surface(vertices, faces, vertex_normals(vertices, faces))


def _all_surfaces(densities: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes: vertices [V, 3] in voxels and outward-facing triangles [F, 3] where the density is `level`."""
    measure = require_mesh_package("skimage.measure")
    border = border_width(len(densities))
    inside = densities[(slice(border, len(densities) - border),) * 3]
    lowest, highest = inside.min(), inside.max()
    if not lowest < level < highest:
        raise UserError(
            f"no surface at density {level:g}: the densities of this face are between {lowest:.4g} and {highest:.4g}; "
            "choose a --shape-level between them"
        )
    # 'ascent': densities are higher inside, and triangles face outward.
    vertices, faces, _, _ = measure.marching_cubes(densities, level, gradient_direction="ascent")
    return vertices, faces


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3]: means of the normals of the faces around a vertex, weighted by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)


def usual_level(densities: np.ndarray) -> float:
    """The density of the surface: DEFAULT_LEVEL, or a lower one if the face does not reach it, as early in training.

    The lower one is the density at which the face is half as opaque as at its densest point.  The opacity of a density is the
    softplus of the ray marcher, softplus(density - 1).
    """
    highest = float(densities.max())
    if highest > DEFAULT_LEVEL:
        return DEFAULT_LEVEL
    half_as_opaque = np.log(np.expm1(np.logaddexp(0, highest - 1) / 2)) + 1
    print(
        f"The densities of this face reach {highest:.3g}, not {DEFAULT_LEVEL:g}: its surface is taken at {half_as_opaque:.3g}"
    )
    return float(half_as_opaque)


def check_format(suffix: str) -> None:
    """Raise UserError if this file format needs packages that are not installed.  Call this before a long computation."""
    if suffix in MESH_FORMATS:
        require_mesh_package("skimage.measure")
        require_mesh_package("trimesh")


def require_mesh_package(name: str) -> Any:
    """Import one of the optional packages that meshes need.  Raises UserError with the command that installs them."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"meshes need the package {name.split('.')[0]}, which is not installed: "
            "pip install scikit-image trimesh, or write --shape-format .mrc"
        ) from None
