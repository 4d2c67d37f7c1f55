"""The renderer of old projects in the family's format.  See write_snapshots.py."""

import torch

from torch_utils import persistence
from torch_utils.ops import grid_sample_gradfix
from training.volumetric_rendering import math_utils
from training.volumetric_rendering.ray_marcher import MipRayMarcher2

AXES = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]


def look_up(axes, planes, points, box_warp, depth):
    batch, count, channels, height, width = planes.shape
    places = torch.einsum("nmi,pji->npmj", points * (2 / box_warp), axes).reshape(batch * count, 1, 1, -1, 3)
    volumes = planes.reshape(batch * count, channels // depth, depth, height, width)
    found = grid_sample_gradfix.grid_sample(volumes, places)
    return found.reshape(batch, count, channels // depth, -1).permute(0, 1, 3, 2)


@persistence.persistent_class
class ImportanceRenderer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ray_marcher = MipRayMarcher2()
        self.plane_axes = torch.tensor(AXES, dtype=torch.float32)

    def forward(self, planes, decoder, origins, directions, options):
        self.plane_axes = self.plane_axes.to(origins.device)
        if options["ray_start"] == options["ray_end"] == "auto":
            start, end = math_utils.get_ray_limits_box(origins, directions, box_side_length=options["box_warp"])
            hit = end > start
            start, end = start.where(hit, start[hit].min()), end.where(hit, end[hit].max())
        else:
            start, end = (torch.full_like(origins[..., :1], options[name]) for name in ("ray_start", "ray_end"))
        count = options["depth_resolution"]
        depths = math_utils.linspace(start, end, count).permute(1, 2, 0, 3)
        if options["ray_start"] != "auto":
            depths = depths.contiguous()
        depths = depths + torch.rand_like(depths) * ((end - start) / (count - 1)).unsqueeze(-2)
        colors, densities = self.samples(planes, decoder, origins, directions, depths, options)
        weights = self.ray_marcher(colors, densities, depths, options)[2]
        fine = self.fine_depths(depths, weights, options["depth_resolution_importance"])
        fine_colors, fine_densities = self.samples(planes, decoder, origins, directions, fine, options)
        depths, order = torch.sort(torch.cat([depths, fine], dim=-2), dim=-2)
        densities = torch.cat([densities, fine_densities], dim=-2).gather(-2, order)
        colors = torch.cat([colors, fine_colors], dim=-2)
        colors = colors.gather(-2, order.expand_as(colors))
        colors, depth, weights = self.ray_marcher(colors, densities, depths, options)
        return colors, depth, weights.sum(2)

    def samples(self, planes, decoder, origins, directions, depths, options):
        batch, rays, count, _ = depths.shape
        points = (origins.unsqueeze(-2) + depths * directions.unsqueeze(-2)).reshape(batch, -1, 3)
        along = directions.unsqueeze(-2).expand(-1, -1, count, -1).reshape(batch, -1, 3)
        out = self.run_model(planes, decoder, points, along, options)
        limit = options["box_warp"] / 2 - 0.1
        empty = (points[..., [0, 2]].abs() > limit).any(dim=-1, keepdim=True)
        sigma = torch.where(empty, torch.full_like(out["sigma"], -1e3), out["sigma"])
        return out["rgb"].reshape(batch, rays, count, -1), sigma.reshape(batch, rays, count, 1)

    def run_model(self, planes, decoder, points, directions, options):
        out = decoder(look_up(self.plane_axes, planes, points, options["box_warp"], options["triplane_depth"]), directions)
        if options.get("density_noise", 0) > 0:
            out["sigma"] += torch.randn_like(out["sigma"]) * options["density_noise"]
        return out

    @torch.no_grad()
    def fine_depths(self, depths, weights, count):
        batch, rays, coarse, _ = depths.shape
        w = weights.reshape(batch * rays, 1, coarse - 1)
        w = torch.nn.functional.max_pool1d(w, 2, 1, padding=1)
        w = torch.nn.functional.avg_pool1d(w, 2, 1).squeeze(1)[:, 1:-1] + 0.01 + 1e-5
        cdf = torch.cumsum(w / w.sum(-1, keepdim=True), -1)
        cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
        z = depths.reshape(batch * rays, coarse)
        middles = (z[:, :-1] + z[:, 1:]) / 2
        u = torch.rand(batch * rays, count, device=z.device)
        index = torch.searchsorted(cdf, u, right=True)
        low, high = (index - 1).clamp_min(0), index.clamp_max(coarse - 3)
        low_cdf, low_z, high_z = cdf.gather(1, low), middles.gather(1, low), middles.gather(1, high)
        step = cdf.gather(1, high) - low_cdf
        step[step < 1e-5] = 1
        return (low_z + (u - low_cdf) / step * (high_z - low_z)).reshape(batch, rays, count, 1)
