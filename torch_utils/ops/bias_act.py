"""Bias, activation, gain and clamp in one call, in that order (Karras 2020, StyleGAN2, appendix B)."""

import math
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F


class Activation(NamedTuple):
    """An activation: `function` of the tensor and of alpha, the default alpha, and the gain that keeps unit variance."""

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


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """Add bias `b` [C] along axis `dim` of `x`, apply `act`, multiply by `gain`, clamp to ±`clamp`.

    `act` names an entry of `activation_funcs`, whose defaults stand in for `alpha` and `gain` where they are None.
    `impl` is what published code passes to choose an implementation; there is one.
    """
    activation = activation_funcs[act]
    if b is not None:
        x = x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    x = activation.function(x, activation.def_alpha if alpha is None else alpha)
    gain = activation.def_gain if gain is None else gain
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
