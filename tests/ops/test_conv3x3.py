"""The 3x3 convolution with fewer multiplications against PyTorch's: values and gradients, also of gradients."""

import pytest
import torch
import torch.nn.functional as F

from torch_utils import custom_ops
from torch_utils.ops import conv3x3


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """The compiled path for small pictures too."""
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    monkeypatch.setattr(conv3x3, "_WORTHWHILE", 1)


def example(batch=2, inputs=32, outputs=48, height=9, width=14, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(batch, inputs, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return [x.requires_grad_(), torch.randn(outputs, inputs, 3, 3, dtype=dtype, requires_grad=True)]


def plain(x, w):
    return F.conv2d(x, w, padding=1)


def with_gradients(function, tensors):
    out = function(*tensors)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().reshape(out.shape)
    return out, *torch.autograd.grad(out, tensors, cotangent)


def is_compiled(tensor):
    return "Conv3x3" in type(tensor.grad_fn).__name__


SIZES = [
    {},
    dict(height=1, width=1),
    dict(height=4, width=4, inputs=16, outputs=16),
    dict(height=5, width=3, inputs=16, outputs=80),
    dict(height=33, width=40, inputs=144, outputs=16),
    dict(batch=5, height=8, width=8, inputs=128, outputs=128),
]


@pytest.mark.parametrize("kwargs", SIZES)
def test_float32_loses_little(kwargs):
    tensors = example(**kwargs)
    exact = with_gradients(plain, [tensor.detach().double().requires_grad_() for tensor in tensors])
    found = with_gradients(conv3x3.conv3x3, tensors)
    assert is_compiled(found[0])
    for fast, expected in zip(found, exact):
        assert (fast - expected).norm() <= 3e-6 * expected.norm()


@pytest.mark.parametrize("kwargs", SIZES)
def test_float64(kwargs):
    tensors = example(dtype=torch.float64, **kwargs)
    for fast, expected in zip(with_gradients(conv3x3.conv3x3, tensors), with_gradients(plain, tensors)):
        torch.testing.assert_close(fast, expected, rtol=1e-10, atol=1e-10)


def test_gradients_by_finite_differences():
    tensors = example(batch=1, inputs=16, outputs=16, height=2, width=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(conv3x3.conv3x3, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(conv3x3.conv3x3, tensors, fast_mode=True)


def test_weights_in_any_order_of_memory():
    x, w = example()
    expected = conv3x3.conv3x3(x, w)
    assert torch.equal(conv3x3.conv3x3(x, w.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(conv3x3.conv3x3(x, w.mT.contiguous().mT), expected)


def test_no_pictures():
    x, w = example(batch=0)
    out = conv3x3.conv3x3(x, w)
    assert out.shape == (0, 48, 9, 14)
    assert torch.autograd.grad(out.sum(), w)[0].eq(0).all()


def test_what_does_not_fit_is_plain():
    x, w = example()
    assert not is_compiled(conv3x3.conv3x3(x.contiguous(), w))  # channels apart
    assert not is_compiled(conv3x3.conv3x3(*example(inputs=24)))
    assert not is_compiled(conv3x3.conv3x3(*example(outputs=3)))
    assert not is_compiled(conv3x3.conv3x3(*example(dtype=torch.bfloat16)))


def test_the_number_of_threads_changes_nothing():
    tensors, threads = example(height=30, width=50), torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(conv3x3.conv3x3(*tensors))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
