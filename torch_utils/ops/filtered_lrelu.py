"""Bias, up-sampling, leaky ReLU and down-sampling in one call (Karras 2021, StyleGAN3, section 3.2).

No network in this project has such layers, but the source code inside published snapshots imports the function.
"""

import math
from collections.abc import Sequence

import torch

from .bias_act import bias_act
from .upfirdn2d import upfirdn2d


def filtered_lrelu(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> torch.Tensor:
    """Add bias `b` [C] to pictures `x` [N, C, H, W], up-sample by `up`, apply a leaky ReLU and down-sample by `down`.

    The filters are `fu` and `fd`.  `padding` is in up-sampled pixels and applied before the activation, whose negative slope is
    `slope`.  Its result is multiplied by `gain` and limited by `clamp`.  `impl` is ignored, as in `upfirdn2d`.
    """
    x = upfirdn2d(bias_act(x, b), fu, up=up, padding=padding, flip_filter=flip_filter, gain=up**2)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, fd, down=down, flip_filter=flip_filter)
