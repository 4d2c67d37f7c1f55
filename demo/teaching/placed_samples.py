"""Volume rendering with samples placed about a known surface.

Where the depth of a ray's surface is known, a few samples do what dozens do elsewhere: some in the free space before it,
most of them about it, some behind.  The quadrature is that of `ray_marcher`; only the places are others.
"""

from typing import NamedTuple

import torch

import camera_utils
from training.rendering_settings import RenderingSettings
from training.volumetric_rendering import ray_sampler
from training.volumetric_rendering.ray_marcher import March, march_rays
from training.volumetric_rendering.renderer import cut_density


class Placement(NamedTuple):
    """How the samples of a ray lie about its surface."""

    free: int = 2  # samples between the camera's near limit and the surface
    near: int = 6  # about the surface
    behind: int = 2  # between the surface and the far limit, the denser the nearer
    width: float = 0.06  # half of the length about the surface, world units

    @property
    def count(self) -> int:
        """Samples of a ray."""
        return self.free + self.near + self.behind


class Rays(NamedTuple):
    """Rays of N people, those of all views of a person in one row."""

    origins: torch.Tensor  # [N, R, 3]
    directions: torch.Tensor  # [N, R, 3], unit length
    distances: torch.Tensor  # [N, R, 1] along the ray to the surface, world units
    hit: torch.Tensor  # bool [N, R, 1]: whether there is a surface


def cast_rays(labels: torch.Tensor, depths: torch.Tensor, masks: torch.Tensor, resolution: int, persons: int) -> Rays:
    """`resolution`² rays of each of the cameras `labels` [N, 25], and how far their surfaces are.

    depths [N, H, H] are along the cameras' z axes; masks [N, 1, H, H].  A pixel that is less than half head has no surface.
    """
    cam2world, intrinsics = camera_utils.unpack_label(labels)
    origins, directions = ray_sampler.sample_rays(cam2world, intrinsics, resolution)
    step = depths.shape[-1] // resolution
    depth = depths[:, step // 2 :: step, step // 2 :: step].flatten(1)
    mask = masks[:, 0, step // 2 :: step, step // 2 :: step].flatten(1)
    hit = (depth > 0) & (mask > 0.5)
    cosine = (directions * cam2world[:, None, :3, 2]).sum(dim=-1)
    parts = (origins, directions, (depth / cosine)[..., None], hit[..., None])
    return Rays(*(part.reshape(persons, -1, part.shape[-1]) for part in parts))


def place(rays: Rays, placement: Placement, near: float, far: float) -> torch.Tensor:
    """Sorted distances [N, R, S, 1] of samples, each in a stratum of its own; spread evenly on rays without surface."""
    free, about, behind, width = placement
    surface = rays.distances
    u = torch.rand(*surface.shape[:2], placement.count, device=surface.device)
    even = near + (far - near) * (torch.arange(placement.count, device=u.device) + u) / placement.count

    def strata(first: int, count: int) -> torch.Tensor:
        return (torch.arange(count, device=u.device) + u[..., first : first + count]) / count

    before = near + (surface - width - near).clamp(min=0.01) * strata(0, free)
    at = surface + width * (2 * strata(free, about) - 1)
    after = surface + width + (far - surface - width).clamp(min=0.02) * strata(free + about, behind) ** 2
    return torch.where(rays.hit, torch.cat([before, at, after], dim=-1), even)[..., None]


def march(G: torch.nn.Module, grids: torch.Tensor, rays: Rays, placement: Placement) -> tuple[March, torch.Tensor]:
    """What the rays see of the heads `grids` [N, 3, C, D, H, W], and the samples' distances [N, R, S, 1]."""
    settings = RenderingSettings.from_kwargs(G.rendering_kwargs)
    distances = place(rays, placement, settings.ray_start, settings.ray_end)
    points = (rays.origins[:, :, None] + distances * rays.directions[:, :, None]).flatten(1, 2)
    density, features = G.query(grids, points)
    density = cut_density(density, points, settings)
    density, features = (x.unflatten(1, distances.shape[1:3]) for x in (density, features))
    return march_rays(features, density, distances), distances
