"""The twice differentiable look-up against its formula, against PyTorch's own, and its gradients to third order."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops.grid_sample_gradfix import grid_sample


def tensors(batch=2, channels=3, height=5, width=7, points=(4, 6), reach=1.4):
    """A picture, and points of which some lie outside the frame."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn([batch, channels, height, width], dtype=torch.float64, generator=generator)
    grid = (torch.rand([batch, *points, 2], dtype=torch.float64, generator=generator) * 2 - 1) * reach
    return x, grid


def definition(x, grid):
    """Each point is the mean of the four pixels around it, by nearness; pixels outside count as 0."""
    batch, channels, height, width = x.shape
    result = np.zeros([batch, channels, *grid.shape[1:3]])
    for n, i, j in np.ndindex(batch, *grid.shape[1:3]):
        column = (float(grid[n, i, j, 0]) + 1) / 2 * width - 0.5
        row = (float(grid[n, i, j, 1]) + 1) / 2 * height - 0.5
        for r in (int(np.floor(row)), int(np.floor(row)) + 1):
            for c in (int(np.floor(column)), int(np.floor(column)) + 1):
                if 0 <= r < height and 0 <= c < width:
                    result[n, :, i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * x[n, :, r, c].numpy()
    return torch.from_numpy(result)


def test_agrees_with_its_definition():
    x, grid = tensors()
    torch.testing.assert_close(grid_sample(x, grid), definition(x, grid))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_agrees_with_pytorch_in_value_and_gradient(memory_format):
    x, grid = tensors()
    x = x.to(memory_format=memory_format).requires_grad_()
    weight = torch.randn([2, 3, 4, 6], dtype=torch.float64)
    ours, theirs = grid_sample(x, grid), F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(ours, theirs)
    (our_gradient,) = torch.autograd.grad((ours * weight).sum(), x)
    (their_gradient,) = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(our_gradient, their_gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(dtype):
    x, grid = tensors()
    assert grid_sample(x.to(dtype), grid.to(dtype)).dtype == dtype


def test_gradients_to_second_order():
    x, grid = tensors()
    x = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: grid_sample(x, grid) ** 3, x)
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid) ** 3, x)


def test_third_derivative():
    x, grid = tensors(batch=1, channels=1, height=2, width=3)
    # The look-up is a matrix: its columns are the look-ups of single pixels.
    pixels = torch.eye(6, dtype=torch.float64).reshape(6, 1, 2, 3)
    matrix = grid_sample(pixels, grid.expand(6, -1, -1, -1)).flatten(1).T
    x = x.requires_grad_()
    (first,) = torch.autograd.grad((grid_sample(x, grid) ** 4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    along = matrix.sum(dim=1)  # the direction that the sums above differentiate in
    expected = matrix.T @ (24 * (matrix @ x.detach().flatten()) * along**2)
    torch.testing.assert_close(third.flatten(), expected)


def test_grid_gets_no_gradient():
    x, grid = tensors()
    grid_sample(x.requires_grad_(), grid.requires_grad_()).sum().backward()
    assert x.grad is not None and grid.grad is None
