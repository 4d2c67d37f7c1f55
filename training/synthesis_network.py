"""StyleGAN2's synthesis network: w to pictures, or to the planes of a head (Karras 2020).  Nothing here knows of 3D."""

import math

import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, upfirdn2d
from training.layers import (
    ARCHITECTURES,
    LOWPASS,
    Conv2dLayer,
    FullyConnectedLayer,
    channels_at,
    check_resolution,
    first_fp16_resolution,
    memory_format,
    modulated_conv2d,
    unscaled_modulated_conv2d,
)


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU, at `resolution` pixels after up-sampling by `up`."""

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        kernel_size=3,
        up=1,
        use_noise=True,
        activation="lrelu",
        resample_filter=LOWPASS,
        conv_clamp=None,
    ):
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        if use_noise:
            self.register_buffer("noise_const", torch.randn([resolution, resolution]))
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode is random, const or none, not {noise_mode!r}")
        noise = None
        if self.use_noise and noise_mode == "random":
            shape = [x.shape[0], 1, self.resolution, self.resolution]
            noise = torch.randn(shape, device=x.device) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        x, scale = unscaled_modulated_conv2d(
            x=x,
            weight=self.weight,
            styles=self.affine(w),
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            fused_modconv=fused_modconv,
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(
            x,
            self.bias.to(x.dtype),
            act=self.activation,
            gain=self.act_gain * gain,
            clamp=clamp,
            scale=scale,
            noise=None if noise is None else noise.to(x.dtype),
        )


def _matrix_for_each_sample(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x [N, I, H, W] -> w [N, O, I] · x + b [O]: a modulated 1x1 convolution without a pass over x to scale it."""
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    out = torch.baddbmm(b, pixels, w.mT).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return out.contiguous() if w.shape[1] < 8 else out  # few colours: planes


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Features to colours: a modulated convolution without demodulation, noise or activation."""

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        if x.device.type == "cpu" and self.weight.shape[2] == 1:
            x = _matrix_for_each_sample(x, self.weight[:, :, 0, 0] * styles[:, None], self.bias)
            return bias_act.bias_act(x, clamp=self.conv_clamp)
        x = modulated_conv2d(x=x, weight=self.weight, styles=styles, demodulate=False, fused_modconv=fused_modconv)
        return bias_act.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    """The layers at one resolution: up-sampling conv0 (not in the first block), conv1, and torgb as `architecture` has it.

    `up` is 2, or 1 for a block that keeps the size of its input.  The first block (`in_channels` 0) starts from a constant.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        img_channels,
        is_last,
        architecture="skip",
        up=2,
        resample_filter=LOWPASS,
        conv_clamp=256,
        use_fp16=False,
        fp16_channels_last=True,
        fused_modconv_default=True,
        use_noise=True,
        activation="lrelu",
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.architecture = architecture
        self.up = up
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.fused_modconv_default = fused_modconv_default
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        layer = dict(
            w_dim=w_dim,
            resolution=resolution,
            resample_filter=resample_filter,
            conv_clamp=conv_clamp,
            use_noise=use_noise,
            activation=activation,
        )
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=up, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 0
        if is_last or architecture == "skip":
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp)
            self.num_torgb = 1
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(
                in_channels, out_channels, kernel_size=1, bias=False, up=up, resample_filter=resample_filter
            )

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, noise_mode="random"):
        """x [N, in_channels, H, W] and img [N, img_channels, H, W] or None -> the same at this block's resolution.

        ws [N, num_conv + num_torgb, w_dim].
        """
        misc.assert_shape(ws, [None, self.num_conv + self.num_torgb, self.w_dim])
        w = iter(ws.unbind(dim=1))
        half = self.use_fp16 and not force_fp32 and ws.device.type == "cuda"
        dtype = torch.float16 if half else torch.float32
        layout = memory_format(self.channels_last and half, ws.device)
        if fused_modconv is None:
            fused_modconv = self.fused_modconv_default
        if fused_modconv == "inference_only":
            fused_modconv = not self.training
        fused_modconv = fused_modconv and ws.device.type != "cpu"  # where weights for each sample cost more
        layer = dict(fused_modconv=fused_modconv, noise_mode=noise_mode)

        if self.in_channels == 0:
            x = self.const.to(dtype=dtype, memory_format=torch.contiguous_format).repeat(ws.shape[0], 1, 1, 1)
            x = self.conv1(x.to(memory_format=layout), next(w), **layer)
        else:
            x = x.to(dtype=dtype, memory_format=layout)
            if self.architecture == "resnet":
                shortcut = self.skip(x, gain=math.sqrt(0.5))
                x = self.conv0(x, next(w), **layer)
                x = shortcut + self.conv1(x, next(w), gain=math.sqrt(0.5), **layer)
            else:
                x = self.conv0(x, next(w), **layer)
                x = self.conv1(x, next(w), **layer)

        if img is not None and self.up > 1:
            img = upfirdn2d.upsample2d(img, self.resample_filter, up=self.up)
        if self.num_torgb:
            rgb = self.torgb(x, next(w), fused_modconv=fused_modconv).to(torch.float32)
            img = rgb if img is None else img + rgb
        return x, img


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws [N, num_ws, w_dim] -> pictures [N, img_channels, img_resolution, img_resolution], float32.

    Synthesis starts from a learned constant of `const_resolution` pixels, 4 in the paper.  From a finer one, a network learns
    in far fewer images where things are that all pictures have in the same place.
    """

    def __init__(
        self,
        w_dim,
        img_resolution,
        img_channels,
        channel_base=32768,
        channel_max=512,
        num_fp16_res=4,
        const_resolution=4,
        **block_kwargs,
    ):
        super().__init__()
        for resolution in (img_resolution, const_resolution):
            check_resolution(resolution)
        if const_resolution > img_resolution:
            raise ValueError(f"the constant of {const_resolution} pixels is larger than the picture of {img_resolution}")
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        levels = range(int(math.log2(const_resolution)), int(math.log2(img_resolution)) + 1)
        self.block_resolutions = [2**level for level in levels]
        fp16_from = first_fp16_resolution(img_resolution, num_fp16_res)
        self.num_ws = 0
        in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = channels_at(resolution, channel_base, channel_max)
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=img_channels,
                is_last=resolution == img_resolution,
                use_fp16=num_fp16_res > 0 and resolution >= fp16_from,
                **block_kwargs,
            )
            # A block's torgb shares its w with the next block's first convolution.
            self.num_ws += block.num_conv + (block.num_torgb if resolution == img_resolution else 0)
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels

    def forward(self, ws, **block_kwargs):
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        ws = ws.to(torch.float32)
        x = img = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            x, img = block(x, img, ws[:, first : first + block.num_conv + block.num_torgb], **block_kwargs)
            first += block.num_conv
        return img
