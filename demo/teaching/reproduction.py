"""How well heads reproduce the views that are known of them: the terms that lessons from pictures share."""

from dataclasses import dataclass

import torch

from demo.teaching.people import Views
from demo.teaching.placed_samples import Placement, cast_rays, march
from demo.teaching.terms import FeatureDifference, depth_difference, hollowness, mask_difference, picture_difference
from training.images import from_uint8
from training.volumetric_rendering.ray_marcher import March


@dataclass(frozen=True)
class Reproduction:
    """What is looked at, and the weights of the terms in their sum; the raw and the final picture count 1."""

    persons: int = 2  # in a step
    views: int = 4  # of each
    resolution: int = 64  # pixels of the raw picture
    placement: Placement = Placement()
    mask: float = 0.5
    depth: float = 1.0
    solid: float = 0.05
    features: float = 0.3


def reproduction_terms(
    G: torch.nn.Module,
    grids: torch.Tensor,
    ws: torch.Tensor,
    background: torch.Tensor,
    views: Views,
    settings: Reproduction,
    features: FeatureDifference,
) -> dict[str, torch.Tensor]:
    """The weighted terms by name, for views on G's device.

    grids [persons, 3, C, D, H, W] are looked at from all views of each person; ws [persons * views, num_ws, w_dim] and
    background [persons * views, C, B, B] belong to the views.
    """
    targets, masks, labels = from_uint8(views.images), views.masks, views.labels
    rays = cast_rays(labels, views.depths, masks, settings.resolution, len(views.who))
    seen, distances = march(G, grids, rays, settings.placement)
    by_view = March(*(part.reshape(len(labels), -1, *part.shape[2:]) for part in seen))
    made = G.compose(ws, by_view, background)
    return dict(
        raw=picture_difference(made["image_raw"], targets, masks),
        image=picture_difference(made["image"], targets, masks),
        features=settings.features * features(made["image"], targets),
        mask=settings.mask * mask_difference(made["image_mask"], masks),
        depth=settings.depth * depth_difference(seen.weights, distances, rays),
        solid=settings.solid * hollowness(G, grids, rays),
    )
