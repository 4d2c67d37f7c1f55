"""Rays through the pixels of a camera, and where they meet the box that holds the head."""

import torch


def sample_rays(cam2world: torch.Tensor, intrinsics: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and unit directions [N, resolution², 3] of rays through pixel centres, row by row.

    cam2world [N, 4, 4] with OpenCV axes, intrinsics [N, 3, 3] normalised by the picture's size (skew is honoured).
    """
    centres = (torch.arange(resolution, device=cam2world.device) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    u, v = u.reshape(1, -1), v.reshape(1, -1)
    fx, fy, cx, cy, skew = (intrinsics[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1)))
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    directions = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ cam2world[:, :3, :3].mT
    directions = torch.nn.functional.normalize(directions, dim=-1)
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return origins, directions


def box_limits(
    origins: torch.Tensor, directions: torch.Tensor, box_warp: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where rays enter and leave the cube of side `box_warp` about the origin: start, end [N, R, 1] and hit, a mask.

    The slab method; start is not under 0.  Rays that miss have no meaningful start and end.
    """
    inverse = 1 / torch.where(directions == 0, torch.full_like(directions, 1e-20), directions)
    low, high = (-box_warp / 2 - origins) * inverse, (box_warp / 2 - origins) * inverse
    start = torch.minimum(low, high).amax(dim=-1, keepdim=True).clamp(min=0)
    end = torch.maximum(low, high).amin(dim=-1, keepdim=True)
    return start, end, start < end


class RaySampler(torch.nn.Module):
    """`sample_rays` for the text inside published snapshots, which hold an object of this class by its name."""

    def forward(self, cam2world_matrix, intrinsics, resolution):
        """[N, 4, 4], [N, 3, 3] of any floating type, and pixels -> origins and directions [N, resolution², 3] in float32."""
        return sample_rays(cam2world_matrix.float(), intrinsics.float(), resolution)
