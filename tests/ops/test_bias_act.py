"""bias_act against the formulas of its activations, and its gradients to second order."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from torch_utils.ops.bias_act import activation_funcs, bias_act

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer 2017
FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "lrelu": lambda x: np.where(x < 0, 0.2 * x, x),
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "selu": lambda x: SELU_SCALE * np.where(x < 0, SELU_ALPHA * np.expm1(x), x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "swish": lambda x: x * scipy.special.expit(x),
}
ROOT_TWO_GAIN = ("relu", "lrelu", "swish")


def tensors(shape=(2, 3, 5, 4), dim=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    return x, torch.randn([shape[dim]], dtype=torch.float64, generator=generator)


def test_every_activation_has_a_formula_here():
    assert set(FORMULAS) == set(activation_funcs)


@pytest.mark.parametrize("act", FORMULAS)
def test_agrees_with_its_formula(act):
    x, b = tensors()
    gain = math.sqrt(2) if act in ROOT_TWO_GAIN else 1
    biased = (x + b[:, None, None]).numpy()
    torch.testing.assert_close(bias_act(x, b, act=act), torch.from_numpy(gain * FORMULAS[act](biased)))
    assert activation_funcs[act].def_gain == gain


@pytest.mark.parametrize("act", FORMULAS)
def test_gain_and_clamp_come_last(act):
    x, b = tensors()
    expected = np.clip(3 * FORMULAS[act]((x + b[:, None, None]).numpy()), -0.7, 0.7)
    torch.testing.assert_close(bias_act(x, b, act=act, gain=3, clamp=0.7), torch.from_numpy(expected))


def test_clamp_of_zero_is_a_clamp():
    x, b = tensors()
    assert not bias_act(x, b, clamp=0).any()


def test_alpha_is_the_slope_of_lrelu():
    x, _ = tensors()
    expected = math.sqrt(2) * torch.where(x < 0, 0.05 * x, x)
    torch.testing.assert_close(bias_act(x, act="lrelu", alpha=0.05), expected)
    torch.testing.assert_close(bias_act(x, act="lrelu", alpha=0), bias_act(x, act="relu"))


@pytest.mark.parametrize(
    "shape, dim", [((4, 3), 1), ((4, 3), 0), ((2, 3, 5, 7), 0), ((2, 3, 5, 7), 2), ((2, 3, 5, 7), 3), ((6,), 0)]
)
def test_bias_runs_along_dim(shape, dim):
    x, b = tensors(shape, dim)
    expected = (x.movedim(dim, -1) + b).movedim(-1, dim)
    torch.testing.assert_close(bias_act(x, b, dim=dim), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("act", FORMULAS)
def test_keeps_dtype_and_layout(act, dtype):
    x, b = (t.to(dtype) for t in tensors())
    x = x.to(memory_format=torch.channels_last)
    result = bias_act(x, b, act=act, gain=0.5, clamp=1)
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", FORMULAS)
def test_gradients_to_second_order(act, clamp):
    x, b = (t.requires_grad_() for t in tensors((2, 3, 3, 2)))

    def function(x, b):
        return bias_act(x, b, act=act, gain=1.3, clamp=clamp)

    # No value is so near a kink that a finite difference steps over it.
    biased = (x + b[:, None, None]).detach()
    assert biased.abs().min() > 1e-3
    assert clamp is None or (function(x, b).detach().abs() != clamp).any()
    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b))
