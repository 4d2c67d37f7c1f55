"""Trilinear lookup of points in several feature grids, averaged over the grids, with the channels of a cell adjacent in memory.

PyTorch's own lookup reads every channel of a cell from a different place in memory; this one reads them together.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from torch_utils import custom_ops

Axes = Sequence[Sequence[int]]


def grid_lookup(table: torch.Tensor, points: torch.Tensor, axes: Axes) -> torch.Tensor:
    """Look up features [N, M, C] at `points` [N, M, 3] in [-1, 1]: trilinear between the centres of cells, zeros outside.

    table is [N, G, D, H, W, C]; axes[g] lists the coordinates of a point that run along (W, H, D) of grid g.  Differentiable
    once.  On the CPU, gradients do not depend on the number of threads.  On CUDA, the gradient of the table is accumulated in
    any order, unless `torch.use_deterministic_algorithms` asks for reproducible bits, which is slower.
    """
    if custom_ops.compiled(table, points) is None:
        return _reference(table, points, axes)
    return _Lookup.apply(table.contiguous(), points.contiguous(), list(itertools.chain(*axes)))


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, points, axes):
        ctx.save_for_backward(table, points)
        ctx.axes = axes
        return custom_ops.compiled(table).grid_lookup(table, points, axes)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        table, points = ctx.saved_tensors
        ops, grad = custom_ops.compiled(table), grad.contiguous()
        grad_table = grad_points = None
        if ctx.needs_input_grad[0]:
            grad_table = ops.grid_lookup_grad_table(grad, points, table.shape, ctx.axes)
        if ctx.needs_input_grad[1]:
            grad_points = ops.grid_lookup_grad_points(grad, table, points, ctx.axes)
        return grad_table, grad_points, None


def _reference(table: torch.Tensor, points: torch.Tensor, axes: Axes) -> torch.Tensor:
    """The reference: one weighted sum of 8 cells per grid for each point."""
    batch, grids, depth, height, width, channels = table.shape
    cells = depth * height * width
    first = torch.arange(batch, device=table.device, dtype=torch.int32)[:, None] * (grids * cells)
    coordinates = points.unbind(-1)
    indices, weights = [], []
    for grid, (x, y, z) in enumerate(axes):
        columns, rows = _neighbours(coordinates[x], width), _neighbours(coordinates[y], height)
        for layer, layer_weight in _neighbours(coordinates[z], depth):
            layer = first + grid * cells + layer * (height * width)
            for row, row_weight in rows:
                line, line_weight = layer + row * width, layer_weight * row_weight
                for column, column_weight in columns:
                    indices.append(line + column)
                    weights.append(line_weight * column_weight)
    index, weight = torch.stack(indices, -1).flatten(0, 1), torch.stack(weights, -1).flatten(0, 1) / grids
    features = F.embedding_bag(index, table.reshape(-1, channels), mode="sum", per_sample_weights=weight)
    return features.reshape(batch, points.shape[1], channels)


def _neighbours(where: torch.Tensor, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Indices and weights of the two cells around `where` in [-1, 1] on an axis of `length` cells.  Outside weights are 0."""
    place = where * (length / 2) + (length - 1) / 2
    low = place.floor()
    fraction = place - low
    low = low.to(torch.int32)
    return [
        (index.clamp(0, length - 1), torch.where((index >= 0) & (index < length), weight, 0.0))
        for index, weight in ((low, 1 - fraction), (low + 1, fraction))
    ]
