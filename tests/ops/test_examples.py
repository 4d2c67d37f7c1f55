"""The table of ops: every compiled op is in it and agrees with plain PyTorch, and the comparison detects errors."""

import os
import re

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops import examples


@pytest.fixture
def compiled():
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")


@pytest.mark.parametrize("name", examples.EXAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_is_plain_pytorch(compiled, name, dtype):
    cpu = torch.device("cpu")
    assert examples.largest_difference(examples.EXAMPLES[name], cpu, dtype) < examples.TOLERANCES[dtype]


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
