"""The discriminator of old projects in the family's format.  See write_snapshots.py."""

import numpy as np
import torch

from torch_utils import persistence
from torch_utils.ops import upfirdn2d
from training.networks_stylegan2 import DiscriminatorBlock, DiscriminatorEpilogue, MappingNetwork


def filtered_resizing(image, size, f, filter_mode="antialiased"):
    assert filter_mode == "antialiased"
    return torch.nn.functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


@persistence.persistent_class
class MaskDualDiscriminatorV2(torch.nn.Module):
    def __init__(
        self, c_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=4, conv_clamp=256,
        disc_c_noise=0, seg_resolution=128, seg_channels=1, block_kwargs={}, mapping_kwargs={}, epilogue_kwargs={},
    ):  # fmt: skip
        super().__init__()
        self.img_resolution = img_resolution
        self.disc_c_noise = disc_c_noise
        self.block_resolutions = [2**i for i in range(int(np.log2(img_resolution)), 2, -1)]
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        widths = {res: min(channel_base // res, channel_max) for res in [*self.block_resolutions, 4]}
        for res in self.block_resolutions:
            inputs = widths[res] if res < img_resolution else 0
            pictures = 2 * img_channels + seg_channels
            setattr(self, f"b{res}", DiscriminatorBlock(inputs, widths[res], widths[res // 2], pictures, conv_clamp=conv_clamp))
        self.mapping = MappingNetwork(0, c_dim, widths[4], num_ws=None, w_avg_beta=None, **mapping_kwargs)
        self.b4 = DiscriminatorEpilogue(widths[4], cmap_dim=widths[4], **epilogue_kwargs)

    def forward(self, img, c, update_emas=False):
        small = (img["image_raw"], 2 * img["image_mask"] - 1)
        small = [filtered_resizing(x, size=self.img_resolution, f=self.resample_filter) for x in small]
        x, picture = None, torch.cat([img["image"], *small], dim=1)
        for res in self.block_resolutions:
            x = getattr(self, f"b{res}")(x, picture)
        return self.b4(x, self.mapping(None, c))
