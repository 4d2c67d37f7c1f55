"""From grids and rays to features, depth and opacity: coarse samples, then fine ones, then one march over both."""

from collections.abc import Callable

import torch

from training.rendering_settings import MENDED_PLANES, GridModel, RenderingSettings, is_eg3d

from . import ray_sampler, sampling, trigrid
from .ray_marcher import March, march_rays, march_weights, scaled_colours

# Points [N, M, 3] -> densities [N, M, 1] (before softplus) and features [N, M, C].
Field = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_EMPTY = -1e3  # a density that is nothing after softplus


def render_rays(
    field: Field, origins: torch.Tensor, directions: torch.Tensor, settings: RenderingSettings, density_noise: float = 0
) -> March:
    """March rays (origins and directions [N, R, 3]) through `field`.

    Random draws, in this order: jitter [N, R, S, 1] ([S, N, R, 1] for ``auto`` rays), density noise of the coarse samples
    if any, u [N·R, S_fine], noise of the fine ones.  `density_noise` is the deviation of normal noise on the densities.
    """
    batch, rays, _ = origins.shape
    start, end = ray_limits(origins, directions, settings)
    if settings.ray_start == "auto":  # published code draws these samples first, and permutes them
        jitter = torch.rand([settings.depth_resolution, batch, rays, 1], device=origins.device).permute(1, 2, 0, 3)
    else:
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
    order = None
    if settings.depth_resolution_importance > 0:
        weights = march_weights(densities.detach(), depths.detach())
        u = torch.rand([batch * rays, settings.depth_resolution_importance], device=origins.device)
        fine_depths = sampling.importance_depths(depths, weights, u)
        fine_densities, fine_features = look_up(fine_depths)
        depths, order = torch.cat([depths, fine_depths], dim=2).sort(dim=2)
        densities = torch.cat([densities, fine_densities], dim=2).gather(2, order)
        features = torch.cat([features, fine_features], dim=2)  # unsorted: there are many
    return march_rays(features, densities, depths, settings.white_back, order)


def ray_limits(
    origins: torch.Tensor, directions: torch.Tensor, settings: RenderingSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest and farthest depth of the rays, broadcastable to [N, R, 1].

    Numbers are used as they are.  ``auto`` takes the box's entry and exit of each ray; rays that miss it look between the
    nearest entry and the farthest exit of the others, where they find nothing.
    """
    if settings.ray_start != "auto":
        return origins.new_full([1, 1, 1], settings.ray_start), origins.new_full([1, 1, 1], settings.ray_end)
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
    outside = (points[..., :1].abs() > limit) | (points[..., 2:].abs() > limit)
    return densities.masked_fill(outside, _EMPTY)


# For the text inside published snapshots


def has_mended_planes(plane_axes: torch.Tensor | None) -> bool:
    """Whether the axes [3, 3, 3] that a published renderer holds are those that later code of EG3D gave its planes.

    That code mended the third plane, from (z, x) to (z, y); networks trained with it need the mended lookup.
    """
    return plane_axes is not None and plane_axes.shape == (3, 3, 3) and plane_axes[2].argmax(dim=1).tolist() == [2, 1, 0]


def generate_planes(flat_axes: trigrid.Axes | None = None) -> torch.Tensor:
    """The axes [3, 3, 3] of the tri-grid: a row for each coordinate of a lookup, which says what of x, y, z it is.

    With `flat_axes`, such as `trigrid.TRIPLANE_AXES`, those of EG3D's planes; the third is the height above the plane.
    """
    axes = trigrid.TRIGRID_AXES if flat_axes is None else [(*order, 3 - sum(order)) for order in flat_axes]
    return torch.eye(3)[torch.tensor(axes)]


def project_onto_planes(planes: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """Points [N, M, 3] in the coordinates of each of the planes [P, 3, 3]: [N·P, M, 3], the last of which is the height."""
    return (coordinates[:, None] @ planes.mT.to(coordinates)).flatten(0, 1)


def sample_from_planes(
    plane_axes: torch.Tensor,
    plane_features: torch.Tensor,
    coordinates: torch.Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    box_warp: float = 1.0,
    triplane_depth: int | None = None,
) -> torch.Tensor:
    """Features [N, P, M, C] of each plane at points [N, M, 3] in a box of side `box_warp`.

    `plane_features` are [N, P, C, H, W], looked up without their height, or for tri-grids of `triplane_depth` layers
    [N, P, C·D, H, W].  The networks here take the mean over P in one step: `trigrid.sample_grids`.
    """
    places = project_onto_planes(plane_axes, coordinates * (2 / box_warp))
    features = plane_features.flatten(0, 1)
    if triplane_depth is None:
        places = places[:, None, :, :2]
    else:
        features, places = features.unflatten(1, (-1, triplane_depth)), places[:, None, None]
    found = torch.nn.functional.grid_sample(features, places, mode=mode, padding_mode=padding_mode, align_corners=False)
    return found.flatten(2).mT.unflatten(0, plane_features.shape[:2])


class ImportanceRenderer(torch.nn.Module):
    """`render_rays` for the text inside published snapshots.  EG3D's hold an object of this class by its name.

    `planes` [N, 3, C·D, H, W] are a backbone's output; `decoder` takes features [N, planes, M, C] and directions
    [N, M, 3] and returns a dictionary with `sigma` [N, M, 1] and `rgb` [N, M, C]; options are `rendering_kwargs`.
    """

    def forward(self, planes, decoder, ray_origins, ray_directions, rendering_options):
        """Rays [N, R, 3] of any floating type -> features [N, R, C], depth and opacity [N, R, 1] in that of the planes."""
        ray_origins, ray_directions = ray_origins.to(planes.dtype), ray_directions.to(planes.dtype)
        grids = self._grids(planes, rendering_options)

        def field(points):
            directions = ray_directions.repeat_interleave(points.shape[1] // ray_directions.shape[1], dim=1)
            out = self._look_up(grids, decoder, points, directions, rendering_options)
            return out["sigma"], out["rgb"]

        settings = RenderingSettings.from_kwargs(rendering_options)
        seen = render_rays(field, ray_origins, ray_directions, settings, rendering_options.get("density_noise", 0))
        return scaled_colours(seen.features, rendering_options), seen.depth, seen.opacity

    def run_model(self, planes, decoder, sample_coordinates, sample_directions, options):
        """What `decoder` says of points [N, M, 3] in world units, with the density noise of the options."""
        sample_coordinates, sample_directions = sample_coordinates.to(planes.dtype), sample_directions.to(planes.dtype)
        out = self._look_up(self._grids(planes, options), decoder, sample_coordinates, sample_directions, options)
        return dict(out, sigma=add_density_noise(out["sigma"], options.get("density_noise", 0)))

    @staticmethod
    def _grids(planes, options):
        return trigrid.split_planes(planes.flatten(1, -3), options.get("triplane_depth", 1))

    def _look_up(self, grids, decoder, points, directions, options):
        flat_axes = None
        if is_eg3d(options):
            mended = has_mended_planes(getattr(self, "plane_axes", None))
            flat_axes = GridModel.from_kwargs({**options, MENDED_PLANES: mended or options.get(MENDED_PLANES)}).flat_axes
        features = trigrid.sample_grids(grids, points, options["box_warp"], flat_axes)
        return decoder(features[:, None], directions)  # decoders take the mean over planes, which this is already
