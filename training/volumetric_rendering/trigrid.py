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
    """A backbone's output [N, 3·C·depth, H, W] as grids [N, 3, C, depth, H, W].

    On the CPU a cell's features are brought side by side in memory, once for all lookups.
    """
    batch, channels, height, width = planes.shape
    grids = planes.reshape(batch, 3, channels // (3 * depth), depth, height, width)
    return grids.movedim(2, -1).contiguous().movedim(-1, 2) if grids.device.type == "cpu" else grids


def sample_grids(grids: torch.Tensor, points: torch.Tensor, box_warp: float, flat: bool = False) -> torch.Tensor:
    """Features [N, M, C] of `points` [N, M, 3] in world units: the mean of the lookups in the three grids.

    grids [N, 3, C, D, H, W] span the cube of side `box_warp`; trilinear between the centres of their cells, zeros
    outside.  `flat` drops the depth axis (D must be 1): bilinear in three planes.
    """
    points = points * (2 / box_warp)
    if flat:
        return _mean_of_lookups(grids[:, :, :, 0], points, TRIPLANE_AXES)
    if points.device.type == "cpu":
        return _gather_cells(grids, points)
    return _mean_of_lookups(grids, points, TRIGRID_AXES)


def _mean_of_lookups(grids: torch.Tensor, points: torch.Tensor, axes: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """The reference: PyTorch's own lookup, grid by grid; grids [N, 3, C, (D,) H, W], points [N, M, 3] in [-1, 1]."""
    features = 0
    for index, order in enumerate(axes):
        where = torch.stack([points[..., axis] for axis in order], dim=-1).unflatten(
            1, (*[1] * (len(order) - 1), -1)
        )  # [N, (1,) 1, M, len(order)]
        found = F.grid_sample(grids[:, index].contiguous(), where, align_corners=False)
        features = features + found.flatten(2)
    return features.mT / 3


def _gather_cells(grids: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The same for three dimensions as one weighted sum of 3·8 cells a point, each read at once: faster on the CPU."""
    batch, _, channels, depth, height, width = grids.shape
    cells = depth * height * width
    first = torch.arange(batch, device=grids.device, dtype=torch.int32)[:, None] * (3 * cells)
    coordinates = points.unbind(-1)
    indices, weights = [], []
    for grid, (x, y, z) in enumerate(TRIGRID_AXES):
        columns, rows = _neighbours(coordinates[x], width), _neighbours(coordinates[y], height)
        for layer, layer_weight in _neighbours(coordinates[z], depth):
            layer = first + grid * cells + layer * (height * width)
            for row, row_weight in rows:
                line, line_weight = layer + row * width, layer_weight * row_weight
                for column, column_weight in columns:
                    indices.append(line + column)
                    weights.append(line_weight * column_weight)
    index, weight = torch.stack(indices, -1).flatten(0, 1), torch.stack(weights, -1).flatten(0, 1) / 3
    table = grids.movedim(2, -1).reshape(-1, channels)
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight).reshape(batch, -1, channels)


def _neighbours(where: torch.Tensor, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Index and weight of the cells on both sides of `where` in [-1, 1] on an axis of `length` cells; outside weighs 0."""
    place = where * (length / 2) + (length - 1) / 2
    low = place.floor()
    fraction = place - low
    low = low.to(torch.int32)
    return [
        (index.clamp(0, length - 1), torch.where((index >= 0) & (index < length), weight, 0.0))
        for index, weight in ((low, 1 - fraction), (low + 1, fraction))
    ]
