"""Discriminators that see the picture, the raw picture and the mask of a head together (EG3D, 3.4; PanoHead, 3.1)."""

import math

import torch

from torch_utils import persistence
from torch_utils.ops import upfirdn2d
from training.discriminator_blocks import DiscriminatorBlock, DiscriminatorEpilogue
from training.layers import LOWPASS, channels_at, check_resolution, first_fp16_resolution
from training.mapping_network import MappingNetwork
from training.superresolution import resize


def filtered_resizing(
    image: torch.Tensor, size: int, f: torch.Tensor | None = None, filter_mode: str | float = "antialiased"
) -> torch.Tensor:
    """Pictures [N, C, H, W] at `size` x `size` pixels, bilinear.

    `filter_mode` is 'antialiased', 'none' (no filter against aliasing), or 'classic': up-sample by 2 with the filter `f`,
    resize, down-sample by 2.  A number in between blends 'antialiased' (0) with 'none' (1).
    """
    if filter_mode == "antialiased":
        return resize(image, size, True)
    if filter_mode == "none":
        return resize(image, size, False)
    if filter_mode == "classic":
        image = upfirdn2d.upsample2d(image, f, up=2)
        image = resize(image, size * 2 + 2, False)
        return upfirdn2d.downsample2d(image, f, down=2, flip_filter=True, padding=-1)
    return resize(image, size, True).lerp(resize(image, size, False), float(filter_mode))


class _Trunk(torch.nn.Module):
    """The trunk that all discriminators share: blocks from `img_resolution` down to 4 pixels, and the label's mapping.

    A subclass says what goes in (`trunk_input`), and whether the mask has a branch of its own (`has_mask_branch`).
    """

    has_mask_branch = False

    def __init__(
        self,
        c_dim,
        img_resolution,
        img_channels,
        seg_resolution=128,
        seg_channels=1,
        architecture="resnet",
        channel_base=32768,
        channel_max=512,
        num_fp16_res=4,
        conv_clamp=256,
        cmap_dim=None,
        disc_c_noise=0,
        block_kwargs=None,
        mapping_kwargs=None,
        epilogue_kwargs=None,
    ):
        super().__init__()
        check_resolution(img_resolution)
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.seg_resolution = seg_resolution
        self.seg_channels = seg_channels
        self.disc_c_noise = disc_c_noise
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(LOWPASS))
        shape = dict(channel_base=channel_base, channel_max=channel_max)
        common = dict(architecture=architecture, conv_clamp=conv_clamp)
        blocks = dict(shape, num_fp16_res=num_fp16_res, block_kwargs=block_kwargs or {}, **common)
        channels = self._trunk_channels()
        self.block_names = self._add_blocks("b", img_resolution, channels, **blocks)
        self.branch_names = []
        if self.has_mask_branch:
            check_resolution(seg_resolution)
            self.branch_names = self._add_blocks("sb", seg_resolution, seg_channels, **blocks)
        width = channels_at(4, **shape)
        cmap_dim = (width if cmap_dim is None else cmap_dim) if c_dim > 0 else 0
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(
            width, cmap_dim=cmap_dim, resolution=4, img_channels=channels, **common, **(epilogue_kwargs or {})
        )

    def _trunk_channels(self):
        return 2 * self.img_channels

    def _add_blocks(self, prefix, resolution, img_channels, channel_base, channel_max, num_fp16_res, block_kwargs, **common):
        """Make the blocks from `resolution` to 8 as attributes; return their names in order."""
        names = []
        layers = 0
        fp16_from = first_fp16_resolution(resolution, num_fp16_res)
        for size in (2**i for i in range(int(math.log2(resolution)), 2, -1)):
            width = channels_at(size, channel_base, channel_max)
            block = DiscriminatorBlock(
                width if names else 0,
                width,
                channels_at(size // 2, channel_base, channel_max),
                resolution=size,
                img_channels=img_channels,
                first_layer_idx=layers,
                use_fp16=num_fp16_res > 0 and size >= fp16_from,
                **common,
                **block_kwargs,
            )
            layers += block.num_layers
            names.append(f"{prefix}{size}")
            setattr(self, names[-1], block)
        return names

    def trunk_input(self, img):
        """The dictionary of pictures -> what the trunk sees, [N, channels, H, H]."""
        return torch.cat([img["image"], filtered_resizing(img["image_raw"], self.img_resolution)], dim=1)

    def forward(self, img, c, update_emas=False, **block_kwargs):
        """Logits [N, 1] of pictures, a dictionary with `image`, `image_raw` and (but for DualDiscriminator) `image_mask`.

        Pictures are in [-1, 1], masks in [0, 1], labels c [N, c_dim].  `update_emas` is accepted for the family's sake:
        nothing here is averaged.
        """
        picture, x = self.trunk_input(img), None
        for name in self.block_names:
            x, picture = getattr(self, name)(x, picture, **block_kwargs)
        if self.branch_names:
            mask, y = filtered_resizing(2 * img["image_mask"] - 1, self.seg_resolution), None
            for name in self.branch_names:
                y, mask = getattr(self, name)(y, mask, **block_kwargs)
            x = x + y
        cmap = None
        if self.c_dim > 0:
            if self.disc_c_noise > 0:
                c = c + torch.randn_like(c) * c.std(0) * self.disc_c_noise
            cmap = self.mapping(None, c)
        return self.b4(x, picture, cmap)


@persistence.persistent_class
class DualDiscriminator(_Trunk):
    """Picture and raw picture side by side (EG3D)."""


@persistence.persistent_class
class MaskDualDiscriminator(_Trunk):
    """Picture and raw picture in the trunk, the mask in a second one that is added before the epilogue."""

    has_mask_branch = True


@persistence.persistent_class
class MaskDualDiscriminatorV2(_Trunk):
    """Picture, raw picture and mask side by side in one trunk (PanoHead)."""

    def _trunk_channels(self):
        return 2 * self.img_channels + self.seg_channels

    def trunk_input(self, img):
        mask = filtered_resizing(2 * img["image_mask"] - 1, self.img_resolution)
        return torch.cat([super().trunk_input(img), mask], dim=1)
