"""The blocks of StyleGAN2's discriminator (Karras 2020), of which `dual_discriminator` builds those of heads."""

import math

import torch

from torch_utils import misc, persistence
from torch_utils.ops import upfirdn2d
from training.layers import ARCHITECTURES, LOWPASS, Conv2dLayer, FullyConnectedLayer, memory_format


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """One resolution of the discriminator: fromrgb where pictures come in, two convolutions, half the size.

    The layers are numbered from `first_layer_idx`; those under `freeze_layers` do not learn (Mo 2020, FreezeD).
    """

    def __init__(
        self,
        in_channels,
        tmp_channels,
        out_channels,
        resolution,
        img_channels,
        first_layer_idx,
        architecture="resnet",
        activation="lrelu",
        resample_filter=LOWPASS,
        conv_clamp=None,
        use_fp16=False,
        fp16_channels_last=True,
        freeze_layers=0,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.num_layers = 0
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

        def conv(inputs, outputs, kernel_size, **kwargs):
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            return Conv2dLayer(
                inputs,
                outputs,
                kernel_size,
                trainable=trainable,
                conv_clamp=conv_clamp,
                resample_filter=resample_filter,
                **kwargs,
            )

        if in_channels == 0 or architecture == "skip":
            self.fromrgb = conv(img_channels, tmp_channels, 1, activation=activation)
        self.conv0 = conv(tmp_channels, tmp_channels, 3, activation=activation)
        self.conv1 = conv(tmp_channels, out_channels, 3, activation=activation, down=2)
        if architecture == "resnet":
            self.skip = conv(tmp_channels, out_channels, 1, bias=False, down=2)

    def forward(self, x, img, force_fp32=False):
        """x [N, in_channels, H, W] (None in the first block) and img or None -> x at half the size, and img for the next."""
        half = self.use_fp16 and not force_fp32 and (img if x is None else x).device.type == "cuda"
        dtype = torch.float16 if half else torch.float32
        layout = memory_format(self.channels_last and half, (img if x is None else x).device)
        if x is not None:
            x = x.to(dtype=dtype, memory_format=layout)
        if self.in_channels == 0 or self.architecture == "skip":
            y = self.fromrgb(img.to(dtype=dtype, memory_format=layout))
            x = y if x is None else x + y
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            shortcut = self.skip(x, gain=math.sqrt(0.5))
            return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Appends `num_channels` channels that say how much the samples of a group differ (Karras 2018, section 3)."""

    def __init__(self, group_size, num_channels=1):
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x):
        batch, channels, height, width = x.shape
        group = batch if self.group_size is None else min(self.group_size, batch)
        # Samples i, i + batch/group, ... form a group.
        y = x.reshape(group, -1, self.num_channels, channels // self.num_channels, height, width)
        deviation = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=[2, 3, 4])  # [batch / group, num_channels]
        deviation = deviation.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, deviation], dim=1)


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    """The last block: minibatch deviation, a convolution, and the logit, as a projection on `cmap` where there is one."""

    def __init__(
        self,
        in_channels,
        cmap_dim,
        resolution,
        img_channels,
        architecture="resnet",
        mbstd_group_size=4,
        mbstd_num_channels=1,
        activation="lrelu",
        conv_clamp=None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, kernel_size=3, activation=activation, conv_clamp=conv_clamp
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x, img, cmap):
        """x [N, in_channels, resolution, resolution], img or None, cmap [N, cmap_dim] or None -> logits [N, 1]."""
        misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
        x = x.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        if self.architecture == "skip":
            x = x + self.fromrgb(img.to(torch.float32))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim > 0:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)  # Miyato 2018, section 3
        return x
