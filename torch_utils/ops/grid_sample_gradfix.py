"""Bilinear look-up in pictures that can be differentiated twice, which R1 regularisation through augmentations needs.

PyTorch's own `grid_sample` has no second derivative.  With respect to the picture the look-up is linear, so its gradient
is the transposed look-up, and the gradient of that is the look-up itself.
"""

import torch
import torch.nn.functional as F

_BILINEAR, _ZEROS = 0, 0  # the codes of mode and padding in aten's backward


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Pictures `input` [N, C, H, W] at `grid` [N, h, w, 2] (x, y in [-1, 1]) -> [N, C, h, w].

    Bilinear, zeros outside, align_corners False.  Gradients of any order to `input`; none to `grid`.  Volumes
    [N, C, D, H, W] at [N, d, h, w, 3], which the text inside published snapshots may pass, get PyTorch's own look-up.
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
        picture = grad_output.new_zeros(()).expand(shape)  # its values do not enter the gradient, its shape does
        grad_input, _ = torch.ops.aten.grid_sampler_2d_backward(
            grad_output.contiguous(), picture, grid, _BILINEAR, _ZEROS, False, [True, False]
        )
        return grad_input

    @staticmethod
    def backward(ctx, grad_grad_input):
        (grid,) = ctx.saved_tensors
        return _Lookup.apply(grad_grad_input, grid), None, None
