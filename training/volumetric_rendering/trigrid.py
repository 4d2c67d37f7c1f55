"""Feature grids and what a point finds in them (PanoHead, section 3.2; EG3D, section 3.2 for flat planes).

A face is three grids [N, 3, C, D, H, W].  The same layout with `flat` lookup is EG3D's three planes, D = 1.
"""

import torch
import torch.nn.functional as F

GRID_CHANNELS = 32  # features of a point
# Which coordinates of a point run along (W, H, D) of each grid.
TRIGRID_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
# Which coordinates run along (W, H) of each flat plane.
TRIPLANE_AXES = ((0, 1), (0, 2), (2, 0))


def split_planes(planes: torch.Tensor, depth: int) -> torch.Tensor:
    """A backbone's output [N, 3·C·depth, H, W] as grids [N, 3, C, depth, H, W]."""
    batch, channels, height, width = planes.shape
    return planes.reshape(batch, 3, channels // (3 * depth), depth, height, width)


def sample_grids(grids: torch.Tensor, points: torch.Tensor, box_warp: float, flat: bool = False) -> torch.Tensor:
    """Features [N, M, C] of `points` [N, M, 3] in world units: the mean of the lookups in the three grids.

    grids [N, 3, C, D, H, W] span the cube of side `box_warp`; trilinear between the centres of their cells, zeros
    outside.  `flat` drops the depth axis (D must be 1): bilinear in three planes.
    """
    points = points * (2 / box_warp)
    features = 0
    for index, axes in enumerate(TRIPLANE_AXES if flat else TRIGRID_AXES):
        grid, where = grids[:, index], points[..., axes]
        if flat:
            found = F.grid_sample(grid[:, :, 0], where[:, None], align_corners=False)[:, :, 0]
        else:
            found = F.grid_sample(grid, where[:, None, None], align_corners=False)[:, :, 0, 0]
        features = features + found
    return features.mT / 3
