"""The compiled paths of bias_act and upfirdn2d against the plain ones: values, gradients, gradients of gradients."""

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops import bias_act, upfirdn2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    monkeypatch.setattr(bias_act, "_WORTHWHILE", 0)


def draw(*shape, dtype=torch.float64, layout=torch.contiguous_format):
    return torch.randn(shape, dtype=dtype).to(memory_format=layout).requires_grad_()


def with_gradients(function, tensors):
    """What `function` makes of the tensors, their gradients, and the gradients of a function of those."""
    out = function(*tensors)
    cotangent = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape).requires_grad_()
    first = torch.autograd.grad(out, tensors, cotangent, create_graph=True)
    again = torch.autograd.grad(function(*tensors), tensors, cotangent)  # where no second ones are wanted
    inputs = [*tensors, cotangent]
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, allow_unused=True, materialize_grads=True)
    return [out, *first, *again, *second]


def assert_same(fast, plain, tolerance):
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def in_plain_pytorch(monkeypatch, function, tensors):
    with monkeypatch.context() as patch:
        patch.setenv(custom_ops.SWITCH, "ref")
        return with_gradients(function, tensors)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (3, 70, 40, 33), (1, 1, 1, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise_shape", [(1, 1), (2, 1), ()])
@pytest.mark.parametrize("act, clamp", [("lrelu", 0.7), ("linear", None), ("relu", None)])
def test_bias_act_with_scale_and_noise(monkeypatch, shape, layout, noise_shape, act, clamp):
    torch.manual_seed(0)
    batch, channels, *size = shape
    noise_shape = [batch if n == 2 else n for n in noise_shape]
    tensors = [draw(*shape, layout=layout), draw(channels), draw(batch, channels), draw(*noise_shape, *size)]

    def function(x, b, scale, noise):
        return bias_act.bias_act(x, b, act=act, clamp=clamp, gain=1.3, scale=scale, noise=noise)

    fast = with_gradients(function, tensors)
    assert fast[0].is_contiguous(memory_format=layout)
    assert_same(fast, in_plain_pytorch(monkeypatch, function, tensors), 1e-9)


@pytest.mark.parametrize("given", ["b", "scale", "noise", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_act_with_one_operand(monkeypatch, given, layout):
    shapes = {"b": [6], "scale": [2, 6], "noise": [2, 1, 9, 8]}
    tensors = [draw(2, 6, 9, 8, dtype=torch.float32, layout=layout)] + (
        [draw(*shapes[given], dtype=torch.float32)] if given else []
    )

    def function(x, *operand):
        return bias_act.bias_act(x, act="lrelu", **dict(zip([given], operand)))

    assert_same(with_gradients(function, tensors), in_plain_pytorch(monkeypatch, function, tensors), 1e-5)


@pytest.mark.parametrize("shape", [(40, 6), (3, 6, 11)])
def test_bias_act_of_rows(monkeypatch, shape):
    tensors = [draw(*shape), draw(6)]

    def function(x, b):
        return bias_act.bias_act(x, b, act="lrelu", clamp=0.4)

    assert_same(with_gradients(function, tensors), in_plain_pytorch(monkeypatch, function, tensors), 1e-9)


def test_nan_stays_and_empty_batches_pass():
    x = torch.full([1, 2, 3, 3], float("nan"))
    assert bias_act.bias_act(x, act="lrelu", clamp=1).isnan().all()
    for layout in LAYOUTS:
        empty = draw(0, 4, 5, 5, layout=layout)
        bias_act.bias_act(empty, draw(4), act="lrelu").sum().backward()
        assert empty.grad.shape == empty.shape


@pytest.mark.parametrize(
    "channels, layout", [(1, LAYOUTS[1]), (3, LAYOUTS[1]), (20, LAYOUTS[0])] + [(n, LAYOUTS[1]) for n in (16, 64, 105)]
)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), ((2, 3), (3, 1)), (3, 2)])
@pytest.mark.parametrize("padding", [0, (2, 1, 0, 3), (3, -1, -2, 4)])
@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [[1, 2, -3], [4, 5, 7]]])
def test_upfirdn2d(monkeypatch, channels, layout, up, down, padding, taps):
    f = upfirdn2d.setup_filter(taps)
    x = draw(2, channels, 6, 9, layout=layout)

    def function(x):
        return upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=padding, gain=1.5)

    assert_same(with_gradients(function, [x]), in_plain_pytorch(monkeypatch, function, [x]), 1e-9)


def test_upfirdn2d_with_a_separable_filter(monkeypatch):
    f = upfirdn2d.setup_filter([1, 2, 3, -1, 5], separable=True)
    x = draw(2, 8, 9, 9, layout=torch.channels_last)

    def function(x):
        return upfirdn2d.upfirdn2d(x, f, up=2, padding=3, flip_filter=True)

    assert_same(with_gradients(function, [x]), in_plain_pytorch(monkeypatch, function, [x]), 1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_number_of_threads_changes_nothing(layout):
    x = draw(2, 48, 65, 63, dtype=torch.float32, layout=layout)
    b, scale = draw(48, dtype=torch.float32), draw(2, 48, dtype=torch.float32)
    results, threads = [], torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            out = bias_act.bias_act(x, b, act="lrelu", scale=scale)
            results.append([out, *torch.autograd.grad(out.sin().sum(), (x, b, scale))])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results))
