"""Super-resolution: two StyleGAN2 blocks that turn rendered features into the final picture (EG3D, section 3.4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils import persistence
from torch_utils.ops import upfirdn2d
from training.layers import LOWPASS
from training.synthesis_network import SynthesisBlock


class Layout(NamedTuple):
    """Sizes of a super-resolution module: pixels in, then (channels, up) of both blocks."""

    input_resolution: int
    blocks: tuple[tuple[int, int], tuple[int, int]]
    resize_larger: bool = True  # whether input of more pixels than `input_resolution` is brought down to it
    owns_filter: bool = True  # whether published checkpoints have a buffer `resample_filter`

    @property
    def output_resolution(self) -> int:
        """Pixels of the picture that comes out."""
        return self.input_resolution * self.blocks[0][1] * self.blocks[1][1]


LAYOUTS = {
    "SuperresolutionHybrid2X": Layout(64, ((128, 1), (64, 2))),
    "SuperresolutionSlim2X": Layout(64, ((64, 1), (32, 2))),
    "SuperresolutionHybrid4X": Layout(128, ((128, 1), (64, 2)), resize_larger=False),
    "SuperresolutionHybrid8X": Layout(128, ((128, 2), (64, 2))),
    "SuperresolutionHybrid8XDC": Layout(128, ((256, 2), (128, 2)), owns_filter=False),
}


def resize(x: torch.Tensor, size: int, antialias: bool) -> torch.Tensor:
    """Pictures [N, C, H, W] at `size` x `size` pixels: bilinear, corners not aligned."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


class SuperresolutionHybrid(torch.nn.Module):
    """The base of all sizes; a subclass only has the name by which `LAYOUTS` and checkpoints know it."""

    def __init__(
        self,
        channels,
        img_resolution,
        sr_num_fp16_res,
        sr_antialias,
        img_channels=3,
        w_dim=512,
        channel_base=None,
        channel_max=None,
        **block_kwargs,
    ):
        """`channel_base` and `channel_max` are in every checkpoint's arguments; the widths are fixed by the layout."""
        super().__init__()
        if img_resolution != self.layout.output_resolution:
            raise ValueError(
                f"{type(self).__name__} makes pictures of {self.layout.output_resolution} pixels, not {img_resolution}"
            )
        self.sr_antialias = sr_antialias
        use_fp16 = sr_num_fp16_res > 0
        resolution = self.layout.input_resolution
        for index, (width, up) in enumerate(self.layout.blocks):
            resolution *= up
            block = SynthesisBlock(
                channels,
                width,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=img_channels,
                is_last=index == 1,
                up=up,
                use_fp16=use_fp16,
                conv_clamp=256 if use_fp16 else None,
                **block_kwargs,
            )
            setattr(self, f"block{index}", block)
            channels = width
        if self.layout.owns_filter:
            self.register_buffer("resample_filter", upfirdn2d.setup_filter(LOWPASS))

    @property
    def layout(self) -> Layout:
        """The sizes of this class; not an attribute, so that snapshots hold plain values."""
        return LAYOUTS[type(self).__name__]

    def forward(self, rgb, x, ws, **block_kwargs):
        """Raw picture [N, 3, h, w], features [N, C, h, w], ws [N, L, w_dim] -> picture [N, 3, H, H].

        The last row of `ws` is used for every layer.
        """
        size = self.layout.input_resolution
        if self.layout.resize_larger or x.shape[-1] < size:
            rgb, x = resize(rgb, size, self.sr_antialias), resize(x, size, self.sr_antialias)
        w = ws[:, -1:].expand(-1, 3, -1)
        x, rgb = self.block0(x, rgb, w, **block_kwargs)
        return self.block1(x, rgb, w, **block_kwargs)[1]


@persistence.persistent_class
class SuperresolutionHybrid2X(SuperresolutionHybrid):
    """64 -> 128."""


@persistence.persistent_class
class SuperresolutionSlim2X(SuperresolutionHybrid):
    """64 -> 128 with half the channels of `SuperresolutionHybrid2X`, a quarter of the work; ours, not the papers'."""


@persistence.persistent_class
class SuperresolutionHybrid4X(SuperresolutionHybrid):
    """128 -> 256."""


@persistence.persistent_class
class SuperresolutionHybrid8X(SuperresolutionHybrid):
    """128 -> 512, the lighter one."""


@persistence.persistent_class
class SuperresolutionHybrid8XDC(SuperresolutionHybrid):
    """128 -> 512 with twice the channels of `SuperresolutionHybrid8X`."""
