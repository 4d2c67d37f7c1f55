"""Shapes: the density of a face on a lattice, as an .mrc volume, and its surface.  `head_file` writes that to files.

The lattice [R, R, R] spans the cube of side box_warp, corners included: axis 0 is the world's x, 1 is y, 2 is z.
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
    """A closed mesh: vertices [V, 3] in world units, outward faces [F, 3], unit normals [V, 3]."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray


def border_width(resolution: int) -> int:
    """Voxels on each side of a lattice that are emptied: near the sides of the box the grids are not trained."""
    return int(30 * resolution / 256)


def points_at_a_time(device: torch.device) -> int:
    """How many points to look up in one call: a power of two, so many that a quarter of the free memory is enough."""
    fitting = free_memory(device) // (4 * POINT_BYTES)
    return min(MOST_POINTS[device.type], max(LEAST_POINTS, 2 ** (fitting.bit_length() - 1)))


@torch.no_grad()
def density_grid(G: TriPlaneGenerator, face: Face, resolution: int, show_progress: bool = True) -> np.ndarray:
    """Densities (before softplus) of one face, float32 [R, R, R]; the border is EMPTY_DENSITY and is not looked up."""
    border = border_width(resolution)
    side = resolution - 2 * border
    half = G.rendering_kwargs.box_warp / 2
    axis = torch.linspace(-half, half, resolution, device=face.ws.device)[border : border + side]
    inside = np.empty(side**3, dtype=np.float32)
    lines = max(1, points_at_a_time(axis.device) // side)  # along z, of one x and y each
    options = dict(unit="voxel", unit_scale=True, desc="density", leave=False, disable=not show_progress)
    with cli.progress(total=inside.size, **options) as bar:
        for start in range(0, side**2, lines):
            line = torch.arange(start, min(start + lines, side**2), device=axis.device)[:, None]
            points = torch.stack(torch.broadcast_tensors(axis[line // side], axis[line % side], axis), dim=-1)
            densities = G.density(face.grids, points.flatten(0, 1)[None]).flatten().cpu().numpy()
            inside[start * side : start * side + len(densities)] = densities
            bar.update(len(densities))
    return np.pad(inside.reshape(side, side, side), border, constant_values=EMPTY_DENSITY)


def save_volume(densities: np.ndarray, path: str | os.PathLike) -> None:
    """Write a density lattice as an .mrc file, x flipped: the form in which this family of tools shares shapes."""
    import mrcfile  # here: nothing else needs it

    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as volume:
        volume.set_data(np.ascontiguousarray(densities[::-1]))


def surface(densities: np.ndarray, box_warp: float, level: float | None = None) -> Surface:
    """The largest closed surface at density `level` of a lattice (`usual_level` for None): what floats about it is left out.

    World axes are kept (y up, z toward the viewer, right-handed): nothing is mirrored.  UserError if there is no surface.
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
    """Vertices [V, 3] in voxels and outward triangles [F, 3] where the density is `level`, by marching cubes."""
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
    """Unit normals [V, 3]: means of those of the faces about a vertex, by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)


def usual_level(densities: np.ndarray) -> float:
    """DEFAULT_LEVEL, or where a face that nowhere reaches it, as early in training, is half as opaque as at its densest.

    How opaque a density is, the ray marcher's softplus of it less one says.
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
    """UserError if files of this format need packages that are not installed: worth knowing before the work."""
    if suffix in MESH_FORMATS:
        require_mesh_package("skimage.measure")
        require_mesh_package("trimesh")


def require_mesh_package(name: str) -> Any:
    """Import one of the optional packages that meshes need; UserError with the command that installs them."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"meshes need the package {name.split('.')[0]}, which is not installed: "
            "pip install scikit-image trimesh, or write --shape-format .mrc"
        ) from None
