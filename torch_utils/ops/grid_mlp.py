"""`grid_lookup` followed by `softplus_mlp`, fused into one kernel for inference where CUDA ops are built."""

import itertools

import torch

from torch_utils import custom_ops

from .grid_lookup import Axes, grid_lookup
from .softplus_mlp import softplus_mlp

# Sizes that the kernel is compiled for: channels of a cell, hidden features, and outputs (a density, or a density and a
# colour).
_INPUTS, _HIDDEN, _OUTPUTS = 32, 64, (1, 33)


def grid_mlp(
    table: torch.Tensor,
    points: torch.Tensor,
    axes: Axes,
    w1: torch.Tensor,
    b1: torch.Tensor,
    w2: torch.Tensor,
    b2: torch.Tensor,
) -> torch.Tensor:
    """Look up points [N, M, 3] in [-1, 1] and apply the layers w1 [hidden, C], b1, w2 [outputs, hidden], b2.

    Returns [N, M, outputs].  table [N, G, D, H, W, C] and axes are those of `grid_lookup`.  If you need only some outputs, pass
    only their rows of w2 and b2, since the others cost time.  Differentiable in the same way as the two ops.
    """
    tensors = table, points, w1, b1, w2, b2
    ops = custom_ops.compiled(*tensors)
    fits = table.dtype == torch.float32 and w1.shape == (_HIDDEN, _INPUTS) and w2.shape[0] in _OUTPUTS
    trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if fits and not trained and hasattr(ops, "grid_mlp"):
        table, points, *layers = (tensor.contiguous() for tensor in tensors)
        return ops.grid_mlp(table, points, list(itertools.chain(*axes)), *layers)
    features = grid_lookup(table, points, axes)
    return softplus_mlp(features.flatten(0, 1), w1, b1, w2, b2).unflatten(0, features.shape[:2])
