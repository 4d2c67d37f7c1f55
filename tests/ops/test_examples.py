"""The table of ops: every compiled op is in it and agrees with plain PyTorch, and the comparison detects errors."""

import os
import re

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops import examples, upfirdn2d


@pytest.fixture
def compiled():
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")


@pytest.mark.parametrize("name", examples.EXAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_is_plain_pytorch(compiled, name, dtype):
    cpu = torch.device("cpu")
    assert examples.largest_difference(examples.EXAMPLES[name], cpu, dtype) < examples.TOLERANCES[dtype]


def test_torch_compile_looks_into_plain_pytorch():
    """In one graph, without a break, where compiled ops would be refused."""
    for name in ("bias_act", "upfirdn2d, up", "grid_mlp", "composite"):
        function, inputs = examples.EXAMPLES[name].function, [tensor.float() for tensor in examples.EXAMPLES[name].inputs()]
        found = torch.compile(function, backend="eager", fullgraph=True)(*inputs)
        assert examples._difference(found, function(*inputs)) < 1e-5


class _Kernels:
    """The CUDA ops with a path for half precision as PyTorch on the CPU: sums in float32, results rounded to the type of x."""

    @staticmethod
    def bias_act(x, scale, noise, b, slope, gain, clamp, last):
        value = _Kernels._before(x, scale, noise, b)
        return (torch.where(value > 0, value, value * slope) * gain).clamp(-clamp, clamp).to(x.dtype)

    @staticmethod
    def bias_act_grad(grad, x, scale, noise, b, slope, gain, clamp, last):
        value = _Kernels._before(x, scale, noise, b)
        factor = torch.where(value > 0, gain, gain * slope)
        grad = grad.float() * factor * ((value * factor).abs() <= clamp)
        grad_x = grad if scale is None else grad * scale.float()[:, :, None, None]
        sums = (grad * x.float()).sum((2, 3)), grad.sum(1).flatten(1), grad.sum((0, 2, 3))
        return [result.to(x.dtype) for result in (grad_x, *sums)]

    @staticmethod
    def _before(x, scale, noise, b):
        value = x.float() if scale is None else x.float() * scale.float()[:, :, None, None]
        return value + noise.float().reshape(-1, 1, *x.shape[2:]) + b.float()[:, None, None]

    @staticmethod
    def upfirdn2d(x, taps, up_x, up_y, down_x, down_y, *padding):
        return upfirdn2d._reference(x.float(), taps.float(), (up_x, up_y), (down_x, down_y), padding).to(x.dtype)


@pytest.mark.parametrize("dtype", custom_ops.HALF_PRECISION)
@pytest.mark.parametrize("name", [name for name, example in examples.EXAMPLES.items() if example.half])
def test_half_precision_as_on_a_gpu_is_well_within_its_tolerance(name, dtype, monkeypatch):
    """Away from kinks, where rounding could decide on a slope."""

    def compiled(*_, half=False):
        return None if custom_ops.mode() == "ref" else _Kernels

    monkeypatch.setattr(custom_ops, "compiled", compiled)
    assert examples.largest_difference(examples.EXAMPLES[name], torch.device("cpu"), dtype) < examples.TOLERANCES[dtype] / 2


def test_every_compiled_op_has_an_example():
    text = "".join(path.read_text() for path in custom_ops.SOURCES.rglob("*.cpp"))
    ops = {name for name in re.findall(r'"(\w+)\(Tensor', text) if "_grad" not in name}
    assert ops and ops <= {name.partition(",")[0] for name in examples.EXAMPLES}


@pytest.mark.parametrize("wrong", ["value", "gradient", "second"])
def test_a_wrong_result_is_seen(wrong):
    class Square(torch.autograd.Function):
        """x², with an error in the compiled mode if one is planted."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square() * factor("value")

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            wanted = "second" if torch.is_grad_enabled() else "gradient"
            return 2 * x * grad * factor(wanted)

    def factor(place):
        return 1.01 if custom_ops.mode() == "require" and place == wrong else 1.0

    example = examples.Example(Square.apply, lambda: (torch.arange(1.0, 5.0, dtype=torch.float64),), twice=True)
    difference = examples.largest_difference(example, torch.device("cpu"), torch.float64)
    assert difference > 0.009


def test_not_a_number_is_a_difference():
    assert examples._difference(torch.tensor([1.0, float("nan")]), torch.ones(2)) == float("inf")


def test_the_mode_is_put_back(monkeypatch):
    monkeypatch.delenv(custom_ops.SWITCH, raising=False)
    with pytest.raises(ValueError), examples.ops_mode("ref"):
        assert custom_ops.mode() == "ref"
        raise ValueError
    assert custom_ops.SWITCH not in os.environ
