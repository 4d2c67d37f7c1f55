"""Example calls of every op that has a compiled path.  The doctor and the tests compare them with plain PyTorch.

An op that gets a compiled path, on any device, needs an entry in `EXAMPLES`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from torch_utils import custom_ops

from . import bias_act, composite, conv3x3, grid_lookup, grid_mlp, softplus_mlp, upfirdn2d

_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))

# Relative difference to plain PyTorch caused by rounding.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


class Example(NamedTuple):
    """A call of `function` with the float tensors that `inputs` creates (float64, on the CPU).

    Gradients are compared too, and second derivatives if `twice`.  Ops for `inference` have no gradients.  `half` says that the
    op has a compiled path for float16 and bfloat16 on GPUs.
    """

    function: Callable[..., torch.Tensor]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    twice: bool = False
    half: bool = False
    inference: bool = False


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _pictures() -> torch.Tensor:
    return _normal(2, 32, 17, 13)


def _points() -> torch.Tensor:
    """Points, some of them outside the grids."""
    return torch.rand(2, 500, 3, dtype=torch.float64) * 2.4 - 1.2


_CLAMP = 1.5
_ALPHA, _GAIN = bias_act.activation_funcs["lrelu"][1:]
# Where the slope of `_bias_act` jumps, and how near to it no value may be: several roundings of bfloat16 to values up to 8.
_KINKS, _KINK_MARGIN = (-_CLAMP / (_GAIN * _ALPHA), 0.0, _CLAMP / _GAIN), 0.06


def _activated() -> tuple[torch.Tensor, ...]:
    """x, b, scale and noise for `_bias_act`, whose sums rounding leaves on their side of a kink.

    In half precision, gradients of gradients round x · scale, others do not.  Values that change sides by it would be 2e-2 of
    the norm, and hide what is wrong by less.
    """
    b, noise = _normal(32), _normal(2, 1, 17, 13)
    scale = (0.5 + torch.rand(2, 32, dtype=torch.float64)) * _normal(2, 32).sign()
    shift, factor = noise + b[:, None, None], scale[:, :, None, None]
    sums = _pictures() * factor + shift
    for kink in _KINKS:
        off = sums - kink
        sums = torch.where(off.abs() < _KINK_MARGIN, kink + _KINK_MARGIN * torch.where(off < 0, -1.0, 1.0), sums)
    return (sums - shift) / factor, b, scale, noise


def _bias_act(x: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return bias_act.bias_act(x, b, act="lrelu", clamp=_CLAMP, scale=scale, noise=noise)


def _bias_act_last(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return _bias_act(x.contiguous(memory_format=torch.channels_last), *others)


def _up(x: torch.Tensor) -> torch.Tensor:
    return upfirdn2d.upsample2d(x, upfirdn2d.setup_filter([1, 3, 3, 1], device=x.device))


def _down(x: torch.Tensor) -> torch.Tensor:
    return upfirdn2d.downsample2d(
        x.contiguous(memory_format=torch.channels_last), upfirdn2d.setup_filter([1, 3, 3, 1], device=x.device)
    )


def _conv3x3(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return conv3x3.conv3x3(x.contiguous(memory_format=torch.channels_last), w)


def _composite(densities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    order = torch.linspace(0, 50, features.shape[2], device=features.device).sin().argsort()
    return composite.composite(densities.sigmoid(), features, order[:, None].expand(*features.shape[:2], -1, -1))


EXAMPLES = {
    "bias_act": Example(_bias_act, _activated, twice=True, half=True),
    "bias_act, channels last": Example(_bias_act_last, _activated, twice=True, half=True),
    "upfirdn2d, up": Example(_up, lambda: (_pictures(),), twice=True, half=True),
    "upfirdn2d, down, channels last": Example(_down, lambda: (_pictures(),), twice=True, half=True),
    "conv3x3": Example(_conv3x3, lambda: (_normal(1, 32, 47, 45), _normal(48, 32, 3, 3)), twice=True),
    "grid_lookup": Example(
        lambda table, points: grid_lookup.grid_lookup(table, points, _AXES),
        lambda: (_normal(2, 3, 3, 8, 9, 32), _points()),
    ),
    "softplus_mlp": Example(
        softplus_mlp.softplus_mlp,
        lambda: (_normal(700, 32), _normal(64, 32), _normal(64), _normal(33, 64), _normal(33)),
        twice=True,
    ),
    "grid_mlp": Example(
        lambda table, points, *layers: grid_mlp.grid_mlp(table, points, _AXES, *layers),
        lambda: (_normal(2, 3, 3, 8, 9, 32), _points(), _normal(64, 32), _normal(64), _normal(33, 64), _normal(33)),
        inference=True,
    ),
    "composite": Example(_composite, lambda: (_normal(2, 40, 23, 1), _normal(2, 40, 24, 32))),
}


def largest_difference(example: Example, device: torch.device, dtype: torch.dtype) -> float:
    """Compare the op compiled for `device` in `dtype` with plain PyTorch in float64, on the same inputs.

    Returns the largest relative difference, norm by norm, of value, gradients and second derivatives.  Raises RuntimeError if
    the ops cannot be compiled for `device`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = [tensor.to(dtype) for tensor in example.inputs()]
    with ops_mode("require"), _all_bits_of_float32():
        found = _values_and_gradients(example, [tensor.to(device) for tensor in inputs])
    with ops_mode("ref"):
        expected = _values_and_gradients(example, [tensor.double() for tensor in inputs])
    return max(_difference(one.cpu().double(), other) for one, other in zip(found, expected, strict=True))


@contextlib.contextmanager
def ops_mode(mode: str) -> Iterator[None]:
    """Inside this block, choose ops as if the environment asked for `mode`, an entry of `custom_ops.MODES`."""
    before = os.environ.get(custom_ops.SWITCH)
    os.environ[custom_ops.SWITCH] = mode
    try:
        yield
    finally:
        if before is None:
            del os.environ[custom_ops.SWITCH]
        else:
            os.environ[custom_ops.SWITCH] = before


@contextlib.contextmanager
def _all_bits_of_float32() -> Iterator[None]:
    """Inside this block, cuDNN uses full float32 instead of TensorFloat-32, whose products have 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _values_and_gradients(example: Example, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    if example.inference:
        return [example.function(*inputs)]
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    value = example.function(*inputs)
    weights = torch.linspace(-0.3, 1, value.numel(), dtype=torch.float64).to(value).reshape(value.shape).requires_grad_()
    results = [value, *torch.autograd.grad(value, inputs, weights, retain_graph=True)]
    if example.twice:  # separately, because ops may compute a gradient differently if it will be differentiated
        gradients = torch.autograd.grad(value, inputs, weights, create_graph=True)
        total = sum(gradient.square().sum() for gradient in gradients)
        results += [*gradients, *torch.autograd.grad(total, [weights, *inputs], materialize_grads=True)]
    return [result.detach() for result in results]


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm().clamp(min=1e-30)).nan_to_num(float("inf")).item()
