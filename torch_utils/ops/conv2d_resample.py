"""Convolution combined with filtered up- or down-sampling, in the cheapest order."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .conv3x3 import conv3x3
from .upfirdn2d import filter_size, parse_padding, upfirdn2d


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Up-sample `x` [N, I, H, W] by `up` with low-pass `f`, convolve with `w` [O, I / groups, kh, kw], down-sample by `down`.

    `padding` is in pixels of the up-sampled picture: one number, (x, y) or (x0, x1, y0, y1).  With `flip_weight` True this is
    PyTorch's convolution (a correlation), with False the mathematical one.  `f` comes from `upfirdn2d.setup_filter`; it is
    applied after up-sampling and before down-sampling, and ignored if there is neither.
    """
    kernel_h, kernel_w = w.shape[2:]
    if up == down == 1:
        f = None  # without resampling there is nothing to filter
    filter_w, filter_h = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    if up > 1:
        x0, x1 = x0 + (filter_w + up - 1) // 2, x1 + (filter_w - up) // 2
        y0, y1 = y0 + (filter_h + up - 1) // 2, y1 + (filter_h - up) // 2
    if down > 1:
        x0, x1 = x0 + (filter_w - down + 1) // 2, x1 + (filter_w - down) // 2
        y0, y1 = y0 + (filter_h - down + 1) // 2, y1 + (filter_h - down) // 2
    pad = (x0, x1, y0, y1)

    # Filters commute with the convolution, so a 1x1 kernel can be applied at the lower resolution.
    if kernel_h == kernel_w == 1 and up == 1 and down > 1:
        return _conv2d(upfirdn2d(x, f, down=down, padding=pad, flip_filter=flip_filter), w, groups, flip_weight)
    if kernel_h == kernel_w == 1 and up > 1 and down == 1:
        x = _conv2d(x, w, groups, flip_weight)
        return upfirdn2d(x, f, up=up, padding=pad, gain=up**2, flip_filter=flip_filter)

    if up > 1:
        # Inserting zeros between the pixels and convolving is a transposed convolution.  The low-pass follows.
        x = _conv_transpose2d(x, w, up, groups, flip_weight)
        pad = (x0 - (kernel_w - 1), x1 - (kernel_w - up), y0 - (kernel_h - 1), y1 - (kernel_h - up))
        x = upfirdn2d(x, f, padding=pad, gain=up**2, flip_filter=flip_filter)
        return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)
    if down > 1:
        x = upfirdn2d(x, f, padding=pad, flip_filter=flip_filter)
        return _conv2d(x, w, groups, flip_weight, stride=down)
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return _conv2d(x, w, groups, flip_weight, padding=(y0, x0))
    return _conv2d(upfirdn2d(x, None, padding=pad), w, groups, flip_weight)


def _conv2d(
    x: torch.Tensor, w: torch.Tensor, groups: int, flip_weight: bool, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    if not flip_weight and w.shape[2] * w.shape[3] > 1:
        w = w.flip([2, 3])
    if (w.shape[2:], stride, padding, groups) == ((3, 3), 1, (1, 1), 1):
        return conv3x3(x, w)
    return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def _conv_transpose2d(x: torch.Tensor, w: torch.Tensor, stride: int, groups: int, flip_weight: bool) -> torch.Tensor:
    """Convolve `x`, spread by `stride`, fully with `w` [O, I / groups, kh, kw]."""
    if flip_weight:
        w = w.flip([2, 3])
    outputs, inputs, kernel_h, kernel_w = w.shape
    w = w.reshape(groups, outputs // groups, inputs, kernel_h, kernel_w).transpose(1, 2)
    return F.conv_transpose2d(
        x, w.reshape(groups * inputs, outputs // groups, kernel_h, kernel_w), stride=stride, groups=groups
    )
