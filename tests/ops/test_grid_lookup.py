"""The compiled lookup against the plain one, and against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from torch_utils import custom_ops
from torch_utils.ops.grid_lookup import _reference, grid_lookup

AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))


@pytest.fixture
def compiled():
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")


def example(batch=2, count=50, channels=32, dtype=torch.float32, size=(2, 5, 7), spread=1.3):
    """A table and points, some of them outside."""
    torch.manual_seed(0)
    table = torch.randn(batch, 3, *size, channels, dtype=dtype, requires_grad=True)
    points = ((torch.rand(batch, count, 3, dtype=dtype) * 2 - 1) * spread).requires_grad_()
    return table, points


def with_gradients(function, table, points):
    features = function(table, points, AXES)
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).reshape(features.shape)
    return features, *torch.autograd.grad((features * weights).sum(), (table, points))


@pytest.mark.parametrize(
    "kwargs",
    [{}, dict(channels=5), dict(dtype=torch.float64), dict(count=0), dict(batch=0), dict(size=(1, 1, 1)), dict(count=3001)],
)
def test_compiled_equals_reference(compiled, kwargs):
    table, points = example(**kwargs)
    for fast, plain in zip(with_gradients(grid_lookup, table, points), with_gradients(_reference, table, points)):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_reference_is_the_mean_of_pytorchs_lookups():
    table, points = example()
    found = [
        F.grid_sample(table[:, g].movedim(-1, 1), points[:, None, None][..., list(order)], align_corners=False)
        for g, order in enumerate(AXES)
    ]
    torch.testing.assert_close(
        _reference(table, points, AXES), torch.stack(found).mean(dim=0).flatten(2).mT, atol=1e-5, rtol=1e-5
    )


def test_storage_of_any_order_will_do(compiled):
    table, points = example()
    other = table.detach().movedim(-1, 2).contiguous().movedim(2, -1)
    assert not other.is_contiguous()
    torch.testing.assert_close(grid_lookup(other, points.mT.contiguous().mT, AXES), grid_lookup(table, points, AXES))


def test_far_away_is_zero(compiled):
    table, _ = example()
    points = torch.tensor([1e30, -1e30, float("inf"), float("nan")]).reshape(1, 4, 1).expand(2, 4, 3)
    assert not grid_lookup(table, points, AXES).any()


def test_gradients_by_finite_differences(compiled):
    table, points = example(batch=1, count=6, channels=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda table, points: grid_lookup(table, points, AXES), (table, points))


def test_the_number_of_threads_changes_nothing(compiled):
    table, points = example(batch=1, count=3000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = with_gradients(grid_lookup, table, points)
        torch.set_num_threads(5)
        five = with_gradients(grid_lookup, table, points)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, five))
