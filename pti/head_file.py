"""A head as a file for other programs: .glb with a baked texture, .obj and .ply with a colour at each vertex.

Metres, y up, looking along z; in a .glb also the photo's camera with its focal length.
"""

import math
import os
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

import camera_utils
from dnnlib import UserError
from dnnlib.util import atomic_path
from pti.atlas import Atlas, unfold
from pti.bake import Shot, Surface, texture
from training import shapes
from training.triplane import Face, TriPlaneGenerator

METRES = 1 / 2.409  # in a world unit: eyes 148.3 mm-units apart are an adult's
TEXELS_PER_PIXEL = 4  # of the network's pictures, along a side of the texture
MAX_TEXELS = 2048
CAMERA_NAME = "photo_camera"
MIN_FACES = 4


def head_surface(densities: np.ndarray, box_warp: float, level: float | None = None) -> Surface:
    """The largest closed surface at density `level` of a lattice (the usual one for None): what floats about it is left out."""
    level = shapes.usual_level(densities) if level is None else level
    vertices, faces = shapes.surface(densities, box_warp, level)
    links = sparse.coo_matrix(
        (np.ones(3 * len(faces)), (faces.ravel(), faces[:, [1, 2, 0]].ravel())), shape=[len(vertices)] * 2
    )
    _, part = connected_components(links, directed=False)
    faces = faces[part[faces[:, 0]] == np.bincount(part[faces[:, 0]]).argmax()]
    if len(faces) < MIN_FACES:
        raise UserError("the head's surface is only a speck: choose another --shape-level")
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used].astype(np.float64), faces.reshape(-1, 3)
    return Surface(vertices, faces, vertex_normals(vertices, faces))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3]: means of those of the faces about a vertex, by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)


def save_head(
    G: TriPlaneGenerator, face: Face, surface: Surface, path: str | os.PathLike, photos: list[Shot], camera: torch.Tensor
) -> None:
    """Write the head's `surface` as the suffix of `path` says; `camera` [1, 25] is the photo's."""
    if Path(path).suffix == ".glb":
        atlas = unfold(surface.vertices, surface.faces, min(MAX_TEXELS, TEXELS_PER_PIXEL * G.img_resolution))
        picture = texture(G, face, surface, atlas, photos)
        save_glb(surface, atlas, picture, camera, path)
    else:
        colors = shapes.vertex_colors(G, face, surface.vertices)
        shapes.save_mesh(surface.vertices * METRES, surface.faces, colors, path)


def save_glb(surface: Surface, atlas: Atlas, picture: np.ndarray, camera: torch.Tensor, path: str | os.PathLike) -> None:
    """Write a textured mesh and its camera [1, 25] as a .glb file, in metres."""
    trimesh = shapes.require_mesh_package("trimesh")
    # A vertex that two pieces share has two places in the texture, so it is there twice.
    keys = surface.faces.astype(np.int64) * (atlas.pieces.max() + 1) + atlas.pieces[:, None]
    _, first, faces = np.unique(keys, return_index=True, return_inverse=True)
    owner = surface.faces.ravel()[first]
    uv = atlas.corners.reshape(-1, 2)[first] / atlas.size
    uv[:, 1] = 1 - uv[:, 1]  # trimesh counts from below
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
    """The pose [4, 4] in metres, by glTF's axes (y up, looking along -z), and the field of view in radians of label [1, 25]."""
    cam2world, intrinsics = (part[0].cpu().double().numpy() for part in camera_utils.unpack_label(label))
    pose = cam2world @ np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] *= METRES
    return pose, 2 * math.atan(0.5 / intrinsics[1, 1])
