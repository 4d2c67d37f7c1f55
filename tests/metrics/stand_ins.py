"""Networks of the form that published detectors have, so small that a test can wait for them; a painter of known pictures."""

import io
import json
import math

import numpy as np
import PIL.Image
import torch

import camera_utils
from dnnlib.archive import ArchiveWriter
from dnnlib.util import EasyDict

PIXELS = 32


class Colours(torch.nn.Module):
    """A detector: the means of a picture's 2x2 parts are its features, repeated to `width`; `classes` of them, if any."""

    def __init__(self, width: int = 12, classes: int = 4):
        super().__init__()
        self.width = width
        self.classes = classes

    def forward(self, images, return_features: bool = False, no_output_bias: bool = False):
        assert images.dtype == torch.uint8
        parts = torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32) / 255, [2, 2]).flatten(1)
        if return_features:
            return parts.repeat(1, -(-self.width // 12))[:, : self.width]
        return (8 * parts.repeat(1, -(-self.classes // 12))[:, : self.classes]).softmax(dim=1)


class Features(torch.nn.Module):
    """A detector without classes: `return_features` is all it knows."""

    def forward(self, images, return_features: bool = False):
        return torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32) / 255, [2, 2]).flatten(1)


class Faces(torch.nn.Module):
    """An embedder: the means of a face's 4x4 parts."""

    def forward(self, faces):
        return torch.nn.functional.adaptive_avg_pool2d(faces, [4, 4]).flatten(1)


def save_script(network, path):
    torch.jit.script(network).save(str(path))
    return path


def paint(labels):
    """Pictures [N, 3, PIXELS, PIXELS] in [-1, 1] that tell the yaw: bright on one side as much as its sine says."""
    yaw = camera_utils.yaw_pitch_roll_degrees(labels)[:, 0].deg2rad()
    across = torch.linspace(-1, 1, PIXELS)
    ramp = 0.8 * yaw.sin()[:, None, None, None] * across
    return (ramp + 0.1 * yaw.cos()[:, None, None, None]).expand(-1, 3, PIXELS, -1)


class Painter(torch.nn.Module):
    """A generator whose pictures are those of `paint`; `turned` paints each camera's mirror image instead."""

    z_dim, img_resolution, neural_rendering_resolution = 4, PIXELS, 8

    def __init__(self, turned=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.rendering_kwargs = EasyDict(turned=turned)
        self.conditioned = []

    def mapping(self, z, c, truncation_psi=1):
        self.conditioned.append(c)
        return z

    def apply_delta_c(self, z, c, truncation_psi=1):
        return c, torch.zeros(len(c), 3)

    def synthesis(self, ws, c, noise_mode):
        self.rendered = c
        return {"image": paint(camera_utils.flip_label(c) if self.rendering_kwargs.turned else c)}


def write_painted(path, yaws):
    """A zip of the pictures that a right generator makes from cameras at `yaws`, in degrees."""
    labels = [camera_utils.orbit_label(math.radians(yaw), 0.0)[0] for yaw in yaws]
    levels = ((paint(torch.stack(labels)) + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    with ArchiveWriter(path) as archive:
        for number, picture in enumerate(levels):
            data = io.BytesIO()
            PIL.Image.fromarray(np.ascontiguousarray(picture)).save(data, "png")
            archive.write(f"{number:03d}.png", data.getvalue())
        entries = [[f"{number:03d}.png", label.tolist()] for number, label in enumerate(labels)]
        archive.write("dataset.json", json.dumps({"labels": entries}).encode())
    return path
