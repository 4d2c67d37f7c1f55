"""The compiled two layers against the plain ones: values and gradients, also of gradients."""

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops.softplus_mlp import _reference, softplus_mlp


@pytest.fixture(autouse=True)
def compiled():
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")


def example(count=100, inputs=32, hidden=64, outputs=33, dtype=torch.float32, spread=1.0):
    torch.manual_seed(0)
    shapes = [count, inputs], [hidden, inputs], [hidden], [outputs, hidden], [outputs]
    x, *weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in (x * spread, *weights)]


def with_gradients(function, tensors):
    out = function(*tensors)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out, *torch.autograd.grad(out, tensors, cotangent)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        dict(count=0),
        dict(count=1),
        dict(count=5000),
        dict(inputs=48, hidden=80, outputs=3),
        dict(outputs=16),
        dict(spread=100.0),
        dict(hidden=10),
    ],
)
def test_float32(kwargs):
    tensors = example(**kwargs)
    exact = with_gradients(_reference, [tensor.detach().double().requires_grad_() for tensor in tensors])
    plain = with_gradients(_reference, tensors)
    for fast, other, expected in zip(with_gradients(softplus_mlp, tensors), plain, exact):
        rounding = (other - expected).norm() + 1e-6 * expected.norm()  # what float32 costs anyway
        assert (fast - expected).norm() <= 3 * rounding


def test_float64_and_gradients_by_finite_differences():
    tensors = example(dtype=torch.float64)
    for fast, expected in zip(with_gradients(softplus_mlp, tensors), with_gradients(_reference, tensors)):
        torch.testing.assert_close(fast, expected)
    tensors = example(count=3, inputs=16, hidden=16, outputs=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(softplus_mlp, tensors)
    assert torch.autograd.gradgradcheck(softplus_mlp, tensors)


def test_the_number_of_threads_changes_nothing():
    tensors, threads = example(count=9000), torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(with_gradients(softplus_mlp, tensors))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results))
