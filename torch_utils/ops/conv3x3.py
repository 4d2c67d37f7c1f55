"""3x3 convolution with stride 1 and one pixel of zeros around, on the CPU with a quarter of the multiplications.

Minimal filtering, F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
"""

import torch
import torch.nn.functional as F

from torch_utils import custom_ops

_WHOLE = 16  # the compiled path takes multiples of it as numbers of channels
# Pixels of a picture from which on the transform of the kernels costs less than it brings.  Not of a batch: how samples are shared
# among processes shall not change how they are rounded.
_WORTHWHILE = 1024


def conv3x3(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x [N, I, H, W] correlated with w [O, I, 3, 3] -> [N, O, H, W], channels side by side in memory where those of `x` are."""
    pixels = x.shape[2] * x.shape[3]
    last = x.is_contiguous(memory_format=torch.channels_last)
    fits = last and pixels >= _WORTHWHILE and w.shape[0] % _WHOLE == 0 and w.shape[1] % _WHOLE == 0
    if not fits or not hasattr(custom_ops.compiled(x, w), "conv3x3"):
        return F.conv2d(x, w, padding=1)
    return _Conv3x3.apply(x, w)


class _Conv3x3(torch.autograd.Function):
    """The compiled path.  The gradient to pixels is such a convolution again; the one to kernels is PyTorch's."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return custom_ops.compiled(x).conv3x3(x, w)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = conv3x3(grad, w.flip([2, 3]).transpose(0, 1)) if ctx.needs_input_grad[0] else None
        grad_w = torch.nn.grad.conv2d_weight(x, w.shape, grad, padding=1) if ctx.needs_input_grad[1] else None
        return grad_x, grad_w
