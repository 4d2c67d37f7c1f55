"""3x3 convolution with stride 1 and zero padding of one pixel.  On the CPU it needs a quarter of the multiplications.

It uses minimal filtering, F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
"""

import torch
import torch.nn.functional as F

from torch_utils import custom_ops

_WHOLE = 16  # the compiled path needs numbers of channels that are multiples of this
# Pixels of one picture above which transforming the kernels pays off.  The batch size does not count, so that rounding does not
# depend on how samples are distributed over processes.
_WORTHWHILE = 1024


def conv3x3(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Correlate x [N, I, H, W] with w [O, I, 3, 3].  The result [N, O, H, W] is channels last if `x` is."""
    pixels = x.shape[2] * x.shape[3]
    last = x.is_contiguous(memory_format=torch.channels_last)
    fits = last and pixels >= _WORTHWHILE and w.shape[0] % _WHOLE == 0 and w.shape[1] % _WHOLE == 0
    if not fits or not hasattr(custom_ops.compiled(x, w), "conv3x3"):
        return F.conv2d(x, w, padding=1)
    return _Conv3x3.apply(x, w)


class _Conv3x3(torch.autograd.Function):
    """The compiled path.  The gradient of the pixels is a convolution of the same kind; that of the kernels is PyTorch's."""

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
