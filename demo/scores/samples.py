"""Samples of a generator to be measured: pictures from the held-out cameras, drawn as training drew them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

import camera_utils
from inference import synthesis
from training.images import picture
from training.triplane import TriPlaneGenerator


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
