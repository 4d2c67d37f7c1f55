"""Super-resolution, as an old project in the family's format might have written it.  See write_snapshots.py."""

import torch

from torch_utils import misc, persistence
from torch_utils.ops import filtered_lrelu, upfirdn2d
from training.networks_stylegan2 import Conv2dLayer, SynthesisBlock, SynthesisLayer, ToRGBLayer
from training.networks_stylegan3 import SynthesisLayer as AliasFreeLayer

UNUSED = (Conv2dLayer, AliasFreeLayer, filtered_lrelu.filtered_lrelu)


@persistence.persistent_class
class SynthesisBlockNoUp(torch.nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, resolution, img_channels, **unused):
        super().__init__()
        self.w_dim = w_dim
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim)

    def forward(self, x, img, ws, update_emas=False, **layer_kwargs):
        misc.assert_shape(ws, [None, 3, self.w_dim])
        x = self.conv1(self.conv0(x, ws[:, 0], **layer_kwargs), ws[:, 1], **layer_kwargs)
        return x, img + self.torgb(x, ws[:, 2])


@persistence.persistent_class
class SuperresolutionHybrid2X(torch.nn.Module):
    def __init__(
        self, channels, img_resolution, sr_num_fp16_res, sr_antialias, num_fp16_res=4, conv_clamp=None, channel_base=None,
        channel_max=None, **block_kwargs,
    ):  # fmt: skip
        super().__init__()
        assert img_resolution == 128
        self.input_resolution = 64
        self.sr_antialias = sr_antialias
        self.block0 = SynthesisBlockNoUp(channels, 128, resolution=64, img_channels=3, **block_kwargs)
        self.block1 = SynthesisBlock(128, 64, resolution=128, img_channels=3, is_last=True, conv_clamp=None, **block_kwargs)
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))

    def forward(self, rgb, x, ws, **block_kwargs):
        ws = ws[:, -1:, :].repeat(1, 3, 1)
        size = (self.input_resolution, self.input_resolution)
        if x.shape[-1] != self.input_resolution:
            options = dict(size=size, mode="bilinear", align_corners=False, antialias=self.sr_antialias)
            x, rgb = (torch.nn.functional.interpolate(picture, **options) for picture in (x, rgb))
        x, rgb = self.block0(x, rgb, ws, **block_kwargs)
        return self.block1(x, rgb, ws, **block_kwargs)[1]
