"""From grids and rays to features, depth and opacity: coarse samples, then fine ones, then one march over both."""

from typing import Callable

import torch

from training.config import RenderingSettings

from . import ray_sampler, sampling
from .ray_marcher import March, march_rays, march_weights

# Points [N, M, 3] -> densities [N, M, 1] (before softplus) and features [N, M, C].
Field = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_EMPTY = -1e3  # a density that is nothing after softplus


def render_rays(
    field: Field, origins: torch.Tensor, directions: torch.Tensor, settings: RenderingSettings, density_noise: float = 0
) -> March:
    """March rays (origins and directions [N, R, 3]) through `field`.

    Random draws, in this order: jitter [N, R, S, 1], density noise of the coarse samples if any, u [N·R, S_fine], noise of
    the fine ones.  `density_noise` is the deviation of normal noise on the densities.
    """
    batch, rays, _ = origins.shape
    start, end = ray_limits(origins, directions, settings)
    jitter = torch.rand([batch, rays, settings.depth_resolution, 1], device=origins.device)
    depths = sampling.stratified_depths(start, end, jitter, settings.disparity_space_sampling)

    def look_up(depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = (origins[:, :, None] + depths * directions[:, :, None]).reshape(batch, -1, 3)
        densities, features = field(points)
        densities = add_density_noise(densities, density_noise)
        densities = cut_density(densities, points, settings)
        shape = (batch, rays, depths.shape[2], -1)
        return densities.reshape(shape), features.reshape(shape)

    densities, features = look_up(depths)
    if settings.depth_resolution_importance > 0:
        weights = march_weights(densities.detach(), depths.detach())
        u = torch.rand([batch * rays, settings.depth_resolution_importance], device=origins.device)
        fine_depths = sampling.importance_depths(depths, weights, u)
        fine_densities, fine_features = look_up(fine_depths)
        depths, order = torch.cat([depths, fine_depths], dim=2).sort(dim=2)
        densities = torch.cat([densities, fine_densities], dim=2).gather(2, order)
        features = torch.cat([features, fine_features], dim=2)
        features = features.gather(2, order.expand_as(features))
    return march_rays(features, densities, depths, settings.white_back)


def ray_limits(
    origins: torch.Tensor, directions: torch.Tensor, settings: RenderingSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest and farthest depth of the rays, broadcastable to [N, R, 1].

    Numbers are used as they are.  ``auto`` takes the box's entry and exit of each ray; rays that miss it look between the
    nearest entry and the farthest exit of the others, where they find nothing.
    """
    if settings.ray_start != "auto":
        limits = torch.tensor([settings.ray_start, settings.ray_end], dtype=torch.float32, device=origins.device)
        return limits[0].reshape(1, 1, 1), limits[1].reshape(1, 1, 1)
    start, end, hit = ray_sampler.box_limits(origins, directions, settings.box_warp)
    infinity = torch.full_like(start, float("inf"))
    nearest = torch.where(hit, start, infinity).min()
    farthest = torch.where(hit, end, -infinity).max()
    any_hit = hit.any()
    nearest = torch.where(any_hit, nearest, torch.zeros_like(nearest))
    farthest = torch.where(any_hit, farthest, torch.ones_like(farthest))
    return torch.where(hit, start, nearest), torch.where(hit, end, farthest)


def add_density_noise(densities: torch.Tensor, deviation: float) -> torch.Tensor:
    """Densities plus normal noise; nothing is drawn where `deviation` is 0."""
    return densities + torch.randn_like(densities) * deviation if deviation > 0 else densities


def cut_density(densities: torch.Tensor, points: torch.Tensor, settings: RenderingSettings) -> torch.Tensor:
    """Empty the space near the sides of the box (x and z), where grids have no data to interpolate from."""
    if settings.cut_margin is None:
        return densities
    limit = settings.box_warp / 2 - settings.cut_margin
    outside = (points[..., (0, 2)].abs() > limit).any(dim=-1, keepdim=True)
    return densities.masked_fill(outside, _EMPTY)
