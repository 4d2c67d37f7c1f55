"""Bias, activation, gain and clamp in one call, in this order (Karras 2020, StyleGAN2, appendix B)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils import custom_ops


class Activation(NamedTuple):
    """An activation: `function` of a tensor and alpha, the default alpha, and the gain that preserves unit variance."""

    function: Callable[[torch.Tensor, float], torch.Tensor]
    def_alpha: float = 0.0
    def_gain: float = 1.0


activation_funcs = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: F.relu(x), def_gain=math.sqrt(2)),
    "lrelu": Activation(F.leaky_relu, def_alpha=0.2, def_gain=math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: F.elu(x)),
    "selu": Activation(lambda x, alpha: F.selu(x)),
    "softplus": Activation(lambda x, alpha: F.softplus(x)),
    "swish": Activation(lambda x, alpha: F.silu(x), def_gain=math.sqrt(2)),
}


# Piecewise linear activations have a compiled path.  These are their slopes for negative values; None stands for alpha.
_SLOPES = {"linear": 1.0, "relu": 0.0, "lrelu": None}
_WORTHWHILE = 4096  # elements above which the compiled path saves more than its call costs


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add bias `b` [C] along axis `dim` of `x`, apply `act`, multiply by `gain` and clamp to ±`clamp`.

    `act` is a key of `activation_funcs`, which also provides the defaults of `alpha` and `gain`.  Pictures `x` [N, C, H, W] can
    be multiplied by `scale` [N, C] first, and `noise` [1 or N, 1, H, W] is added together with the bias.  `impl` is ignored:
    published code passes it to choose an implementation, but here `torch_utils.custom_ops` does.
    """
    if b is scale is noise is clamp is None and act == "linear" and gain in (None, 1):
        return x
    activation = activation_funcs[act]
    alpha = activation.def_alpha if alpha is None else alpha
    gain = activation.def_gain if gain is None else gain
    slope = _SLOPES.get(act, math.nan)
    slope = alpha if slope is None else slope
    last = _channels_are_side_by_side(x)
    fits = not math.isnan(slope) and gain > 0 and dim == 1 and x.numel() >= _WORTHWHILE and (last or x.is_contiguous())
    if fits and custom_ops.compiled(x, b, scale, noise, half=True) is not None:
        return _BiasAct.apply(x, scale, noise, b, slope, gain, math.inf if clamp is None else clamp, last)
    return _reference(x, scale, noise, b, dim, lambda x: activation.function(x, alpha), gain, clamp)


def _reference(x, scale, noise, b, dim, function, gain, clamp):
    if scale is not None:
        x = x * scale[:, :, None, None]
    if noise is not None:
        x = x + noise
    if b is not None:
        x = x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    x = function(x)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _channels_are_side_by_side(x: torch.Tensor) -> bool:
    """Whether pictures [N, C, H, W] or rows [N, C] are stored with their channels adjacent in memory."""
    return x.ndim == 2 and x.is_contiguous() or x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


class _BiasAct(torch.autograd.Function):
    """The compiled path.

    The slope of its activations is piecewise constant, so second derivatives are sums and products with that slope, which
    PyTorch can differentiate.
    """

    @staticmethod
    def forward(ctx, x, scale, noise, b, slope, gain, clamp, last):
        ctx.save_for_backward(x, scale, noise, b)
        ctx.numbers = slope, gain, clamp, last
        return custom_ops.compiled(x, half=True).bias_act(x, *_flat(scale, noise, b), *ctx.numbers)

    @staticmethod
    def backward(ctx, grad):
        x, scale, noise, b = ctx.saved_tensors
        memory_format = torch.channels_last if ctx.numbers[-1] and x.ndim == 4 else torch.contiguous_format
        call, numbers = custom_ops.compiled(x, half=True).bias_act_grad, ctx.numbers
        if not torch.is_grad_enabled():
            grad = grad.contiguous(memory_format=memory_format)
            grad_x, grad_scale, grad_noise, grad_b = call(grad, x, *_flat(scale, noise, b), *numbers)
            grad_noise = None if noise is None else grad_noise.reshape(x.shape[0], 1, *x.shape[2:]).sum_to_size(noise.shape)
            return grad_x, None if scale is None else grad_scale, grad_noise, None if b is None else grad_b, *[None] * 4
        with torch.no_grad():  # the gradient with respect to x · scale, which has no scale of its own
            value = x if scale is None else x * scale[:, :, None, None]
            factor, *_ = call(torch.ones_like(x), value, None, *_flat(noise, b), *numbers)
        grad = grad * factor
        grad_scale = None if scale is None else (grad * x).sum(dim=(2, 3))
        grad_noise = None if noise is None else grad.sum_to_size(noise.shape)
        grad_b = None if b is None else grad.sum(dim=[axis for axis in range(x.ndim) if axis != 1])
        return grad if scale is None else grad * scale[:, :, None, None], grad_scale, grad_noise, grad_b, *[None] * 4


def _flat(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]
