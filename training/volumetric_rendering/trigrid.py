"""Feature grids and what a point finds in them (PanoHead, section 3.2; EG3D, section 3.2 for flat planes).

A face is three grids [N, 3, C, D, H, W].  The same layout with D = 1 and `flat_axes` is EG3D's three planes.
"""

import torch
import torch.nn.functional as F

from torch_utils import custom_ops
from torch_utils.ops import grid_lookup, grid_mlp, softplus_mlp

GRID_CHANNELS = 32  # features of a point
# Which coordinates of a point run along (W, H, D) of each grid.
TRIGRID_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
# Which coordinates run along (W, H) of each flat plane: in EG3D's first networks, which see x and z twice, and in later ones.
TRIPLANE_AXES = ((0, 1), (0, 2), (2, 0))
MENDED_TRIPLANE_AXES = ((0, 1), (0, 2), (2, 1))

Axes = tuple[tuple[int, ...], ...]


def split_planes(planes: torch.Tensor, depth: int) -> torch.Tensor:
    """A backbone's output [N, 3·C·depth, H, W] as grids [N, 3, C, depth, H, W].

    Where lookups are this project's own, a cell's features are brought side by side in memory, once for all of them.
    """
    if not _own_lookup(planes):
        return planes.unflatten(1, (3, -1, depth))
    cells = planes.permute(0, 2, 3, 1).unflatten(-1, (3, -1, depth))  # [N, H, W, 3, C, depth]: how networks store it on the CPU
    return cells.permute(0, 3, 5, 1, 2, 4).contiguous().movedim(-1, 2)


def sample_grids(grids: torch.Tensor, points: torch.Tensor, box_warp: float, flat_axes: Axes | None = None) -> torch.Tensor:
    """Features [N, M, C] of `points` [N, M, 3] in world units: the mean of the lookups in the three grids.

    grids [N, 3, C, D, H, W] span the cube of side `box_warp`; trilinear between the centres of their cells, zeros
    outside.  `flat_axes` drop the depth axis (D must be 1): bilinear in three planes.
    """
    points = points * (2 / box_warp)
    if flat_axes is not None:
        return _mean_of_lookups(grids[:, :, :, 0], points, flat_axes)
    if _own_lookup(grids, points):
        return grid_lookup.grid_lookup(grids.movedim(2, -1), points, TRIGRID_AXES)
    return _mean_of_lookups(grids, points, TRIGRID_AXES)


def sample_decoded(
    grids: torch.Tensor,
    points: torch.Tensor,
    box_warp: float,
    layers: tuple[torch.Tensor, ...],
    flat_axes: Axes | None = None,
) -> torch.Tensor:
    """What `softplus_mlp` with these `layers` (w1, b1, w2, b2) makes of the features of points [N, M, 3]: [N, M, outputs]."""
    if flat_axes is None and _own_lookup(grids, points):
        return grid_mlp.grid_mlp(grids.movedim(2, -1), points * (2 / box_warp), TRIGRID_AXES, *layers)
    features = sample_grids(grids, points, box_warp, flat_axes)
    return softplus_mlp.softplus_mlp(features.flatten(0, 1), *layers).unflatten(0, points.shape[:2])


def _own_lookup(*tensors: torch.Tensor) -> bool:
    """Whether `grid_lookup` is faster than PyTorch's own: on the CPU even in plain PyTorch, elsewhere where it is compiled."""
    return tensors[0].device.type == "cpu" or custom_ops.compiled(*tensors) is not None


def _mean_of_lookups(grids: torch.Tensor, points: torch.Tensor, axes: Axes) -> torch.Tensor:
    """The reference: PyTorch's own lookup, grid by grid; grids [N, 3, C, (D,) H, W], points [N, M, 3] in [-1, 1]."""
    features = 0
    for index, order in enumerate(axes):
        where = torch.stack([points[..., axis] for axis in order], dim=-1).unflatten(
            1, (*[1] * (len(order) - 1), -1)
        )  # [N, (1,) 1, M, len(order)]
        found = F.grid_sample(grids[:, index].contiguous(), where, align_corners=False)
        features = features + found.flatten(2)
    return features.mT / 3
