"""Bilinear lookup in pictures with second derivatives, which R1 regularisation needs when augmentations are used.

PyTorch's `grid_sample` has no second derivative.  The lookup is linear in the picture, so its gradient is the transposed
lookup, whose own gradient is the lookup again.
"""

import torch
import torch.nn.functional as F

_BILINEAR, _ZEROS = 0, 0  # codes of the interpolation and padding modes in aten's backward


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample pictures `input` [N, C, H, W] at `grid` [N, h, w, 2] (x, y in [-1, 1]).  Returns [N, C, h, w].

    Bilinear, zeros outside, align_corners False.  `input` has gradients of any order, `grid` has none.  The source code inside
    published snapshots may pass volumes [N, C, D, H, W] at [N, d, h, w, 3]; they use PyTorch's own lookup.
    """
    if input.ndim == 5:
        return F.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _Lookup.apply(input, grid)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, grid):
        ctx.save_for_backward(grid)
        ctx.shape = input.shape
        return F.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx, grad_output):
        (grid,) = ctx.saved_tensors
        return _TransposedLookup.apply(grad_output, grid, ctx.shape), None


class _TransposedLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_output, grid, shape):
        ctx.save_for_backward(grid)
        picture = grad_output.new_zeros(()).expand(shape)  # the gradient depends on its shape, not on its values
        grad_input, _ = torch.ops.aten.grid_sampler_2d_backward(
            grad_output.contiguous(), picture, grid, _BILINEAR, _ZEROS, False, [True, False]
        )
        return grad_input

    @staticmethod
    def backward(ctx, grad_grad_input):
        (grid,) = ctx.saved_tensors
        return _Lookup.apply(grad_grad_input, grid), None, None
