"""Compositing along rays: the compiled path against the plain one, and against a sum by hand."""

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops.composite import _reference, composite


def example(rays=5, samples=7, channels=32, dtype=torch.float64):
    torch.manual_seed(0)
    weights = torch.rand(2, rays, samples - 1, 1, dtype=dtype, requires_grad=True)
    features = torch.randn(2, rays, samples, channels, dtype=dtype, requires_grad=True)
    return weights, features, torch.rand(2, rays, samples, 1).argsort(dim=2)


def test_two_intervals_by_hand():
    weights = torch.tensor([0.5, 0.25]).reshape(1, 1, 2, 1)
    features = torch.tensor([8.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    order = torch.tensor([1, 2, 0]).reshape(1, 1, 3, 1)  # 2, 4, 8 by depth
    assert composite(weights, features, order).item() == 0.5 * 3 + 0.25 * 6


@pytest.mark.parametrize("kwargs", [{}, dict(channels=5), dict(samples=1), dict(rays=0), dict(rays=200, dtype=torch.float32)])
def test_compiled_equals_reference(kwargs):
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    weights, features, order = example(**kwargs)
    results = []
    for function in (composite, _reference):
        out = function(weights, features, order)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (weights, features))])
    for fast, plain in zip(*results):
        torch.testing.assert_close(fast, plain)
