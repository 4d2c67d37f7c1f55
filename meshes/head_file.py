"""Writes heads for other programs: .glb with a baked texture, .obj and .ply with vertex colours, .stl and .mrc.

Meshes are in metres, y up, looking along z.  A .glb also contains a camera with its focal length.  An .stl has no unit; it is
for printers, which assume millimetres and z up.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import camera_utils
from dnnlib import UserError
from dnnlib.util import atomic_path
from inference import shapes
from inference.shapes import Surface
from meshes.atlas import Atlas, unfold
from meshes.texture import Shot, texture, vertex_colors
from training.triplane import Face, TriPlaneGenerator

METRES = 1 / 2.409  # per world unit; eyes, 0.1483 units apart in the published crops, are then 62 mm apart like an adult's
TEXELS_PER_PIXEL = 4  # along a side of the texture, per pixel of the network's pictures
MAX_TEXELS = 2048
CAMERA_NAME = "camera"


def save_shape(
    G: TriPlaneGenerator,
    face: Face,
    path: str | os.PathLike,
    resolution: int,
    camera: torch.Tensor,
    level: float | None = None,
    scale: float = 1.0,
) -> None:
    """Write the shape of one face at `resolution`³ voxels, in the format of the suffix of `path` (see `shapes.SHAPE_FORMATS`).

    `level` is the density at a mesh's surface; None means `shapes.usual_level`.  A .glb includes `camera` [1, 25].  `scale` is
    the size of an .stl, 1 for life size.
    """
    densities = shapes.density_grid(G, face, resolution)
    if Path(path).suffix == shapes.VOLUME_FORMAT:
        shapes.save_volume(densities, path)
    else:
        save_head(G, face, densities, path, camera, level, scale=scale)


def save_head(
    G: TriPlaneGenerator,
    face: Face,
    densities: np.ndarray,
    path: str | os.PathLike,
    camera: torch.Tensor,
    level: float | None = None,
    photos: Sequence[Shot] = (),
    scale: float = 1.0,
) -> None:
    """Write the mesh of a face whose `shapes.density_grid` is `densities`, in the format of the suffix of `path`.

    `level`, `camera` and `scale` are as in `save_shape`.  A .glb takes its colours from `photos` where they see the surface.
    """
    surface = shapes.surface(densities, G.rendering_kwargs.box_warp, level)
    if Path(path).suffix == ".glb":
        atlas = unfold(surface.vertices, surface.faces, min(MAX_TEXELS, TEXELS_PER_PIXEL * G.img_resolution))
        save_glb(surface, atlas, texture(G, face, surface, atlas, photos), camera, path)
    elif Path(path).suffix == ".stl":
        save_printable(surface, path, scale)
    else:
        save_colored(surface, vertex_colors(G, face, surface.vertices), path)


def save_colored(surface: Surface, colors: np.ndarray, path: str | os.PathLike) -> None:
    """Write a mesh with vertex colours [V, 3] (uint8) as an .obj or .ply file, in metres."""
    trimesh = shapes.require_mesh_package("trimesh")
    mesh = trimesh.Trimesh(surface.vertices * METRES, surface.faces, vertex_colors=colors, process=False)
    with atomic_path(path) as temporary:
        mesh.export(temporary)


def save_printable(surface: Surface, path: str | os.PathLike, scale: float = 1.0) -> None:
    """Write a mesh as a binary .stl file: millimetres times `scale`, z up, without loose pieces.

    The surface should be closed, because the density grid is empty at its border.  Raises UserError if it is not, since
    printers cannot fill an open surface.
    """
    trimesh = shapes.require_mesh_package("trimesh")
    x, y, z = (surface.vertices * (METRES * 1000 * scale)).T
    mesh = trimesh.Trimesh(np.stack([x, -z, y], axis=1), surface.faces)
    pieces = mesh.split(only_watertight=True)
    if not len(pieces):
        raise UserError(f"{path}: the surface has no closed piece to print; try another --shape-level")
    with atomic_path(path) as temporary:
        temporary.write_bytes(max(pieces, key=lambda piece: piece.volume).export(file_type="stl"))


def save_glb(surface: Surface, atlas: Atlas, picture: np.ndarray, camera: torch.Tensor, path: str | os.PathLike) -> None:
    """Write a mesh with the texture `picture` (uint8 [size, size, 3]) and a camera [1, 25] as a .glb file, in metres."""
    trimesh = shapes.require_mesh_package("trimesh")
    # A vertex that two pieces share has two positions in the texture, so it is duplicated.
    keys = surface.faces.astype(np.int64) * (atlas.pieces.max() + 1) + atlas.pieces[:, None]
    _, first, faces = np.unique(keys, return_index=True, return_inverse=True)
    owner = surface.faces.ravel()[first]
    uv = atlas.corners.reshape(-1, 2)[first] / atlas.size
    uv[:, 1] = 1 - uv[:, 1]  # trimesh measures from below
    material = trimesh.visual.material.PBRMaterial(
        name="head", baseColorTexture=PIL.Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0
    )
    mesh = trimesh.Trimesh(
        surface.vertices[owner] * METRES,
        faces.reshape(-1, 3),
        vertex_normals=surface.normals[owner],
        visual=trimesh.visual.TextureVisuals(uv=uv, material=material),
        process=False,
    )
    pose, field_of_view = gltf_camera(camera)
    scene = trimesh.Scene(
        {"head": mesh},
        camera=trimesh.scene.Camera(name=CAMERA_NAME, fov=[math.degrees(field_of_view)] * 2, z_near=0.01),
        camera_transform=pose,
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(scene.export(file_type="glb", include_normals=True))


def gltf_camera(label: torch.Tensor) -> tuple[np.ndarray, float]:
    """Pose [4, 4] in metres with glTF's axes (y up, looking along -z), and field of view in radians, of the label [1, 25]."""
    cam2world, intrinsics = (part[0].cpu().double().numpy() for part in camera_utils.unpack_label(label))
    pose = cam2world @ np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] *= METRES
    return pose, 2 * math.atan(0.5 / intrinsics[1, 1])
