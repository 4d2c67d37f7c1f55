"""Helpers that several tests share and that are not fixtures: a small data set on disk, the children of a process.

They are not in conftest.py, because folders of tests have their own and only one module can have that name.
"""

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from fill import fill

import camera_utils
from dnnlib.archive import ArchiveWriter
from dnnlib.util import construct_class_by_name
from metrics.consistency import Surface, z_from_ray_depth
from training.volumetric_rendering.ray_sampler import sample_rays

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
GOLDEN = Path(__file__).parent / "golden"
RADIUS = 0.3  # of spheres, in world units


def children(pid):
    """Process id -> command line of the processes started by `pid`, in order of their start."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text()
        except OSError:  # it has ended in the meantime
            continue
    return dict(sorted(found.items()))


def write_data_set(folder, yaws, resolution=128):
    """A data set of one picture per yaw (degrees): an off-centre disc on a ramp, with its mask and camera."""
    y, x = np.mgrid[:resolution, :resolution] / resolution
    labels = []
    images, masks = folder / "heads_img.zip", folder / "heads_seg.zip"
    with ArchiveWriter(images) as image_zip, ArchiveWriter(masks) as mask_zip:
        for index, yaw in enumerate(yaws):
            disc = np.hypot(x - 0.45, y - 0.5) < 0.3
            picture = np.stack([255 * x, 255 * y, np.full_like(x, 20 * index % 256)], axis=-1)
            picture[disc] = (200, 150, 120)
            for archive, array in ((image_zip, picture.astype(np.uint8)), (mask_zip, (255 * disc).astype(np.uint8))):
                data = io.BytesIO()
                PIL.Image.fromarray(array).save(data, "png")
                archive.write(f"00000/img{index:08d}.png", data.getvalue())
            label = camera_utils.orbit_label(math.radians(yaw), 0.0)[0].tolist()
            labels.append([f"00000/img{index:08d}.png", label])
        image_zip.write("dataset.json", json.dumps({"labels": labels}).encode())
    return images, masks


def small_generator(samples, **rendering):
    """A generator of heads at 128 pixels, with raw pictures of 16 pixels and `samples` + `samples` per ray."""
    kwargs = json.loads((GOLDEN / "generator_small_kwargs.json").read_text())
    kwargs["rendering_kwargs"].update(depth_resolution=samples, depth_resolution_importance=samples, **rendering)
    generator = fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)
    generator.neural_rendering_resolution = 16
    return generator


def camera(yaw_degrees, pitch_degrees=0.0):
    """The label [25] of a camera on the orbit."""
    return camera_utils.orbit_label(math.radians(yaw_degrees), math.radians(pitch_degrees))[0]


def hit_sphere(label, resolution, centre=(0.0, 0.0, 0.0), radius=RADIUS):
    """Distances along the rays [H, H] to a sphere, infinite where they miss it; and the points where they hit."""
    cam2world, intrinsics = camera_utils.unpack_label(label[None])
    origins, directions = (rays[0] for rays in sample_rays(cam2world, intrinsics, resolution))
    offset = origins - torch.tensor(centre)
    along = (offset * directions).sum(-1)
    inside = along.square() - offset.square().sum(-1) + radius**2
    distance = torch.where(inside > 0, -along - inside.clamp(min=0).sqrt(), torch.inf)
    return distance.reshape(resolution, resolution), (origins + distance[:, None] * directions).reshape(
        resolution, resolution, 3
    )


def sphere(label, resolution=64, centre=(0.0, 0.0, 0.0), radius=RADIUS):
    """What the camera `label` [25] sees of a sphere."""
    return Surface(z_from_ray_depth(hit_sphere(label, resolution, centre, radius)[0], label), label)
