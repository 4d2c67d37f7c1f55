"""Samples of a generator: pictures drawn in the same way as in training, and heads seen from all sides."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

import camera_utils
from demo.scores.consistency import Surface, z_from_ray_depth
from demo.scores.held_out import HEAD_LEVEL
from inference import synthesis
from training.images import picture
from training.triplane import Face, TriPlaneGenerator


class Sample(NamedTuple):
    """A picture from a camera that follows the distribution of the data."""

    picture: np.ndarray  # uint8 [H, H, 3]
    mask: np.ndarray  # float64 [h, h] in 0..1
    label: torch.Tensor  # [25], of the data
    shift: torch.Tensor  # [3], world units: how far the network moved the camera (its self-adaptive alignment)


def spread_by_yaw(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Select `count` of the labels [N, 25], evenly spaced in the order of their yaw, to keep their distribution."""
    order = camera_utils.yaw_pitch_roll_degrees(labels)[:, 0].argsort(stable=True)
    return labels[order[((torch.arange(count) + 0.5) * len(labels) / count).long()]]


@torch.no_grad()
def draw_like_data(
    G: TriPlaneGenerator, seeds: Iterable[int], labels: torch.Tensor, truncation_psi: float = 1.0
) -> Iterator[Sample]:
    """Draw a sample for each seed with the label [25] in the same row.  It conditions the mapping and, shifted, is the camera.

    Raises UserError if the network makes no masks.
    """
    for seed, label in zip(seeds, labels.to(synthesis.device_of(G)), strict=True):
        c = label[None]
        camera, shift = G.apply_delta_c(synthesis.latents([seed], G.z_dim).to(c.device), c)
        ws = synthesis.seeds_to_ws(G, [seed], c, truncation_psi)
        view = synthesis.render(G, synthesis.prepare(G, ws), camera)
        mask = picture(view, "image_mask")[0, :, :, 0] / 255
        yield Sample(picture(view, "image")[0], mask, label.cpu(), shift[0].cpu())


def head_of(G: TriPlaneGenerator, seed: int, truncation_psi: float = 1.0) -> Face:
    """The head of a seed, conditioned on the frontal camera, to be viewed from anywhere."""
    ws = synthesis.seeds_to_ws(G, [seed], synthesis.conditioning_label(synthesis.orbit(G), 90.0), truncation_psi)
    return synthesis.prepare(G, ws)


@torch.no_grad()
def surface_of(G: TriPlaneGenerator, head: Face, label: torch.Tensor, resolution: int) -> Surface:
    """The head's surface as seen by the camera `label` [25], with `resolution`² rays.

    A ray's depth is its mean depth by weight.  Rays count only if they end in the head with at least half of their weight.
    """
    with torch.random.fork_rng(devices=[label.device] if label.device.type == "cuda" else []):
        torch.manual_seed(0)
        seen = G.march(head.grids, label[None], resolution)
    distance, opacity = (rays.reshape(resolution, resolution) for rays in (seen.depth, seen.opacity))
    depth = z_from_ray_depth(distance, label)
    return Surface(depth.masked_fill(opacity < HEAD_LEVEL, torch.inf), label)
