"""Volume rendering by quadrature at the mid-points between samples (Max 1995; EG3D, section 3.3)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from torch_utils.ops import composite
from training.rendering_settings import is_eg3d


class March(NamedTuple):
    """What rays see: features [N, R, C], depth [N, R, 1], opacity [N, R, 1] (the weights' sum), weights [N, R, S - 1, 1]."""

    features: torch.Tensor
    depth: torch.Tensor
    opacity: torch.Tensor
    weights: torch.Tensor


def march_weights(densities: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    """Weights [N, R, S - 1, 1] of the intervals between samples; densities (before softplus) and depths [N, R, S, 1]."""
    length = depths[:, :, 1:] - depths[:, :, :-1]
    density = F.softplus(0.5 * (densities[:, :, :-1] + densities[:, :, 1:]) - 1)
    alpha = 1 - torch.exp(-density * length)
    passed = _Products.apply(1 - alpha + 1e-10)
    passed = torch.cat([torch.ones_like(passed[:, :, :1]), passed[:, :, :-1]], dim=2)
    return alpha * passed


class _Products(torch.autograd.Function):
    """`torch.cumprod` of numbers over zero along axis 2, whose gradient looks for zeros, which makes a GPU's step wait."""

    @staticmethod
    def forward(ctx, x):
        products = torch.cumprod(x, dim=2)
        ctx.save_for_backward(x, products)
        return products

    @staticmethod
    def backward(ctx, grad):
        x, products = ctx.saved_tensors
        return (grad * products).flip(2).cumsum(dim=2).flip(2) / x


def march_rays(
    features: torch.Tensor,
    densities: torch.Tensor,
    depths: torch.Tensor,
    white_back: bool = False,
    order: torch.Tensor | None = None,
) -> March:
    """Composite samples sorted by depth: features [N, R, S, C], densities and depths [N, R, S, 1].

    Features may be in another order: the k-th sample by depth then has those of number order[n, r, k, 0].
    Depth is the mean of the mid-points by weight, within the depths of the whole batch; rays that hit nothing get the
    largest.  `white_back` adds 1 - opacity to the features.
    """
    weights = march_weights(densities, depths)
    middles = 0.5 * (depths[:, :, :-1] + depths[:, :, 1:])
    if order is None:
        order = torch.arange(features.shape[2], device=features.device)[:, None].expand(*features.shape[:2], -1, -1)
    composed = composite.composite(weights, features, order)
    opacity = weights.sum(dim=2)
    depth = ((weights * middles).sum(dim=2) / opacity).nan_to_num(float("inf"))
    depth = depth.clamp(depths.min(), depths.max())
    if white_back:
        composed = composed + 1 - opacity
    return March(composed, depth, opacity, weights)


# For the text inside published snapshots


def scaled_colours(features: torch.Tensor, rendering_options: Mapping[str, Any]) -> torch.Tensor:
    """Composited colours [..., C] as the published marcher gives them: EG3D's maps [0, 1] to [-1, 1], PanoHead's does not."""
    return features * 2 - 1 if is_eg3d(rendering_options) else features


class MipRayMarcher2(torch.nn.Module):
    """`march_rays` as published code calls it.  EG3D's snapshots hold an object of this class by its name."""

    def forward(self, colors, densities, depths, rendering_options):
        """[N, R, S, C], [N, R, S, 1] and [N, R, S, 1] -> colours [N, R, C], depth [N, R, 1], weights [N, R, S - 1, 1]."""
        seen = march_rays(colors, densities, depths, rendering_options.get("white_back", False))
        return scaled_colours(seen.features, rendering_options), seen.depth, seen.weights
