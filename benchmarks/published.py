"""The published arithmetic in plain PyTorch, which the fast path is compared with and must agree with.

It uses plain PyTorch for every op (TORCH_UTILS_OPS=ref), channel-first grids in 5-D `grid_sample`, channel-first pictures, and
styles folded into the weights of grouped convolutions (except in training).  Nothing is kept from one view or chunk to the
next.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F

from torch_utils.ops import examples
from training import discriminator_blocks, layers, synthesis_network
from training.volumetric_rendering import trigrid


@contextlib.contextmanager
def published(training: bool = False) -> Iterator[None]:
    """Make networks compute as published code does inside this block, forward and backward."""
    modulated_conv2d = layers.unscaled_modulated_conv2d

    def plain_modulated_conv2d(*args, **kwargs):
        return modulated_conv2d(*args, **dict(kwargs, fused_modconv=not training))

    with contextlib.ExitStack() as stack:
        stack.enter_context(examples.ops_mode("ref"))
        for module, name, function in (
            (trigrid, "split_planes", _split_planes),
            (trigrid, "sample_grids", _sample_grids),
            (trigrid, "sample_decoded", _sample_decoded),
            (synthesis_network, "memory_format", _memory_format),
            (discriminator_blocks, "memory_format", _memory_format),
            (synthesis_network, "unscaled_modulated_conv2d", plain_modulated_conv2d),
            (synthesis_network, "_matrix_for_each_sample", _grouped_convolution),
        ):
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def _split_planes(planes: torch.Tensor, depth: int) -> torch.Tensor:
    return planes.unflatten(1, (3, -1, depth))


def _sample_grids(
    grids: torch.Tensor, points: torch.Tensor, box_warp: float, flat_axes: trigrid.Axes | None = None
) -> torch.Tensor:
    """The mean of three 5-D lookups; grids [N, 3, C, D, H, W], points [N, M, 3]."""
    assert flat_axes is None, "only tri-grids are measured"
    points = points * (2 / box_warp)
    found = [
        F.grid_sample(grids[:, index], points[:, None, None][..., list(axes)], align_corners=False)[:, :, 0, 0].mT
        for index, axes in enumerate(trigrid.TRIGRID_AXES)
    ]
    return torch.stack(found, dim=1).mean(dim=1)


def _sample_decoded(
    grids: torch.Tensor,
    points: torch.Tensor,
    box_warp: float,
    layers: tuple[torch.Tensor, ...],
    flat_axes: trigrid.Axes | None = None,
) -> torch.Tensor:
    w1, b1, w2, b2 = layers
    return F.linear(F.softplus(F.linear(_sample_grids(grids, points, box_warp, flat_axes), w1, b1)), w2, b2)


def _memory_format(channels_last: bool, device: torch.device) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _grouped_convolution(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Grouped convolution of x [N, I, H, W] with w [N, O, I].  Returns [N, O, H, W]."""
    batch, outputs, inputs = w.shape
    out = F.conv2d(x.reshape(1, batch * inputs, *x.shape[2:]), w.reshape(batch * outputs, inputs, 1, 1), groups=batch).reshape(
        batch, outputs, *x.shape[2:]
    )
    return out + b[:, None, None]
