"""Colours of a mesh: vertex colours from the field, or a texture baked from views."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

import camera_utils
from dnnlib import cli
from inference import synthesis
from inference.shapes import Surface, points_at_a_time
from meshes.atlas import Atlas
from meshes.raster import depth_buffer, project, rasterize
from training.images import to_uint8
from training.triplane import Face, TriPlaneGenerator

LEVEL_YAWS, RAISED_YAWS = 8, 4  # numbers of generated views, level and from above
RAISED_PITCH = -0.8  # radians; negative is above
BUFFER_SIZE = 256  # side of the depth buffers in pixels
BEHIND = 0.015  # world units; a point may lie this far behind the depth that a camera sees there
LEAST_FACING = 0.15  # cosine between normal and view above which a camera's colours count
PHOTO_WEIGHT = 100.0  # weight of a photo relative to a generated view
PHOTO_FACING = (0.35, 0.6)  # cosines between which a photo fades in, because grazing pixels would smear over the cheek
MASK_MARGIN = 0.015  # share of the picture's width by which masks are eroded, because the rim of hair shows background


class Shot(NamedTuple):
    """A picture of the head [1, 3, H, H] in [-1, 1], its mask of the head [1, 1, h, h] in [0, 1], and its camera [1, 25]."""

    image: torch.Tensor
    mask: torch.Tensor
    label: torch.Tensor
    is_photo: bool = False


@torch.no_grad()
def vertex_colors(G: TriPlaneGenerator, face: Face, vertices: np.ndarray) -> np.ndarray:
    """Colours [V, 3], uint8, of points [V, 3] in world units: what `image_raw` would show if there were nothing else."""
    colors = np.empty([len(vertices), 3], dtype=np.uint8)
    chunk = points_at_a_time(face.ws.device)
    for start in range(0, len(vertices), chunk):
        points = torch.as_tensor(vertices[start : start + chunk], dtype=torch.float32, device=face.ws.device)
        features = G.query(face.grids, points[None])[1].mT[..., None]  # [1, 32, M, 1]
        if G.grid_model.decoder_activation == "sigmoid":
            features = features * 2 - 1
        rgb = G.torgb(features, face.ws[:, -1]) if G.grid_model.use_torgb_raw else features[:, :3]
        colors[start : start + len(points)] = to_uint8(rgb)[0, :, 0]
    return colors


def texture(G: TriPlaneGenerator, face: Face, surface: Surface, atlas: Atlas, photos: Sequence[Shot] = ()) -> np.ndarray:
    """Bake the colours of the head's surface onto the square of `atlas`.  Returns uint8 [size, size, 3].

    Each texel is a weighted mean of the generated views and the `photos` that see it.  Frontal views weigh more, and a photo
    weighs far more than a generated view.  Texels that no camera sees get the colour of the field itself.
    """
    hits = list(rasterize(atlas.corners, atlas.size, atlas.size))
    rows, columns, faces, weights = (np.concatenate(part) for part in zip(*hits, strict=True))
    corners = surface.faces[faces]
    points = (surface.vertices[corners] * weights[..., None]).sum(axis=1)
    normals = (surface.normals[corners] * weights[..., None]).sum(axis=1)
    total, colors = np.zeros(len(points)), np.zeros([len(points), 3])
    shots = [*_generated(G, face), *photos]
    for shot in cli.progress(shots, unit="view", desc="texture", leave=False):
        color, weight = _from_camera(shot, surface, points, normals)
        colors += color * weight[:, None]
        total += weight
    unseen = total < 1e-6
    colors[~unseen] /= total[~unseen, None]
    colors[unseen] = vertex_colors(G, face, points[unseen])
    result = np.zeros([atlas.size, atlas.size, 3])
    covered = np.zeros([atlas.size, atlas.size], dtype=bool)
    result[rows, columns], covered[rows, columns] = colors, True
    # Beyond the edges of the pieces, use the nearest colour, because renderers sample a texel or two too far.
    nearest = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return (result[tuple(nearest)] + 0.5).clip(0, 255).astype(np.uint8)


def head_mask(seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mask of a generated picture, or all ones if the network makes no masks."""
    return seen["image_mask"] if "image_mask" in seen else torch.ones_like(seen["image_raw"][:, :1])


def _generated(G: TriPlaneGenerator, face: Face) -> list[Shot]:
    radius, device = synthesis.orbit_radius(G), face.ws.device
    turns = [(yaw / LEVEL_YAWS, 0.0) for yaw in range(LEVEL_YAWS)]
    turns += [((yaw + 0.5) / RAISED_YAWS, RAISED_PITCH) for yaw in range(RAISED_YAWS)]
    labels = [camera_utils.orbit_label(2 * math.pi * turn, pitch, radius, device=device) for turn, pitch in turns]
    views = synthesis.views(G, face, labels)
    return [Shot(seen["image"], head_mask(seen), label) for seen, label in zip(views, labels)]


def _from_camera(shot: Shot, surface: Surface, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours [P, 3] in 0–255 of `points` in a picture, and their weights [P]."""
    places, depth = project(shot.label, points)
    buffer = depth_buffer(shot.label, surface.vertices, surface.faces, BUFFER_SIZE)
    pixel = (places * BUFFER_SIZE).astype(np.int64)
    inside = ((pixel >= 0) & (pixel < BUFFER_SIZE)).all(axis=1)
    pixel = pixel.clip(0, BUFFER_SIZE - 1)
    visible = inside & (depth <= buffer[pixel[:, 1], pixel[:, 0]] + BEHIND)
    camera = shot.label[0, camera_utils.POSITION_ENTRIES].cpu().numpy()
    toward = camera - points
    facing = (normals * toward).sum(axis=1) / np.linalg.norm(toward, axis=1) / np.linalg.norm(normals, axis=1).clip(1e-9)
    weight = visible * ((facing - LEAST_FACING) / (1 - LEAST_FACING)).clip(0) ** 2
    if shot.is_photo:
        fade = ((facing - PHOTO_FACING[0]) / (PHOTO_FACING[1] - PHOTO_FACING[0])).clip(0, 1)
        weight = weight * PHOTO_WEIGHT * fade
    weight = weight * (_look_up(_narrowed(shot.mask), places)[:, 0] > 0.9)
    return (_look_up(shot.image, places) * 127.5 + 127.5).clip(0, 255), weight


def _narrowed(mask: torch.Tensor) -> torch.Tensor:
    margin = max(1, round(MASK_MARGIN * mask.shape[-1]))
    return -F.max_pool2d(-mask, 2 * margin + 1, stride=1, padding=margin)


def _look_up(picture: torch.Tensor, places: np.ndarray) -> np.ndarray:
    """Bilinearly interpolated values [P, C] of a picture [1, C, H, W] at positions [P, 2] in [0, 1]."""
    grid = torch.as_tensor(places * 2 - 1, dtype=torch.float32)[None, None]
    found = F.grid_sample(picture.detach().cpu().to(torch.float32), grid, padding_mode="border", align_corners=False)
    return found[0, :, 0].T.double().numpy()
