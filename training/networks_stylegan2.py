"""StyleGAN2's networks (Karras 2020): mapping, synthesis and discriminator blocks.  Nothing here knows of 3D.

Names of modules and tensors are those of published checkpoints.  Shapes: N batch, C channels, pictures [N, C, H, W].
Every weight is stored with unit variance and scaled when it is used: equalised learning rate (Karras 2018, section 4.1).
"""

import math

import torch
import torch.nn.functional as F

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

LOWPASS = (1, 3, 3, 1)  # the binomial filter of all up- and down-sampling
ARCHITECTURES = ("orig", "skip", "resnet")


def normalize_second_moment(x: torch.Tensor, dim: int = 1, eps: float = 1e-8) -> torch.Tensor:
    """Divide `x` by its root mean square along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Width of the layers at `resolution`: base / resolution, at most max."""
    return min(channel_base // resolution, channel_max)


def first_fp16_resolution(img_resolution: int, num_fp16_res: int) -> int:
    """The smallest resolution that runs in float16 when the `num_fp16_res` highest ones do; never under 8."""
    return max(2 ** (int(math.log2(img_resolution)) + 1 - num_fp16_res), 8)


def check_resolution(img_resolution: int) -> None:
    """Raise ValueError unless `img_resolution` is a power of two, at least 4."""
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise ValueError(f"the resolution must be a power of two and at least 4, not {img_resolution}")


def _memory_format(channels_last: bool, device: torch.device) -> torch.memory_format:
    """That of activations; the CPU's convolutions and this project's ops are fastest with channels side by side."""
    return torch.channels_last if channels_last or device.type == "cpu" else torch.contiguous_format


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    padding: int = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> torch.Tensor:
    """Convolution whose input channels are scaled by `styles`, with unit output variance (Karras 2020, section 2.2).

    x [N, I, H, W], weight [O, I, k, k], styles [N, I], noise broadcastable to the result [N, O, up H, up W].
    `fused_modconv` puts the styles into the weights of one grouped convolution; otherwise they scale the activations,
    which gives the same picture.  float16 input is scaled ahead of time so that nothing overflows.
    """
    x, scale = _modulated_conv2d(
        x, weight, styles, up, padding, resample_filter, demodulate, flip_weight, fused_modconv=fused_modconv
    )
    if scale is not None:
        x = x * scale[:, :, None, None]
    return x if noise is None else x + noise.to(x.dtype)


def _modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    up: int = 1,
    padding: int = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`modulated_conv2d` but for a scale [N, O] of its output, where there is one, and for noise."""
    batch, (out_channels, in_channels, kernel, _) = x.shape[0], weight.shape
    if x.dtype == torch.float16 and demodulate:
        # Demodulation cancels any factor on weights and styles.
        largest = weight.norm(float("inf"), dim=[1, 2, 3], keepdim=True)
        weight = weight * (1 / math.sqrt(in_channels * kernel * kernel) / largest)
        styles = styles / styles.norm(float("inf"), dim=1, keepdim=True)

    if fused_modconv:
        w = weight[None] * styles[:, None, :, None, None]  # [N, O, I, k, k]
        if demodulate:
            w = w * (w.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).rsqrt()
        x = conv2d_resample.conv2d_resample(
            x=x.reshape(1, batch * in_channels, *x.shape[2:]),
            w=w.reshape(batch * out_channels, in_channels, kernel, kernel).to(x.dtype),
            f=resample_filter,
            up=up,
            padding=padding,
            groups=batch,
            flip_weight=flip_weight,
        )
        return x.reshape(batch, out_channels, *x.shape[2:]), None
    x = bias_act.bias_act(x, scale=styles.to(x.dtype))
    x = conv2d_resample.conv2d_resample(
        x=x, w=weight.to(x.dtype), f=resample_filter, up=up, padding=padding, flip_weight=flip_weight
    )
    if not demodulate:
        return x, None
    energy = styles.square() @ weight.square().sum(dim=[2, 3]).T  # of the modulated weights, [N, O]
    return x, (energy + 1e-8).rsqrt().to(x.dtype)


def scaled_weights(layer, dtype=torch.float32):
    """Weight [out_features, in_features] and bias [out_features] or None as a FullyConnectedLayer uses them.

    A function, since layers of published snapshots are of a class of their own, with these attributes.
    """
    b = None if layer.bias is None else layer.bias.to(dtype) * layer.bias_gain
    return layer.weight.to(dtype) * layer.weight_gain, b


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """[N, in_features] -> [N, out_features], with bias and activation."""

    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x):
        w, b = scaled_weights(self, x.dtype)
        if self.activation == "linear":
            return F.linear(x, w, b)
        return bias_act.bias_act(x @ w.T, b, act=self.activation)


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    """Convolution with optional up- or down-sampling, bias and activation.  A frozen layer has buffers, no parameters."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        bias=True,
        activation="linear",
        up=1,
        down=1,
        resample_filter=LOWPASS,
        conv_clamp=None,
        trainable=True,
    ):
        super().__init__()
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        weight = torch.randn([out_channels, in_channels, kernel_size, kernel_size])
        offset = torch.zeros([out_channels]) if bias else None
        if trainable:
            self.weight = torch.nn.Parameter(weight)
            self.bias = None if offset is None else torch.nn.Parameter(offset)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", offset)

    def forward(self, x, gain=1):
        x = conv2d_resample.conv2d_resample(
            x=x,
            w=(self.weight * self.weight_gain).to(x.dtype),
            f=self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        b = None if self.bias is None else self.bias.to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, b, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [N, z_dim] and label [N, c_dim] -> w [N, num_ws, w_dim], or [N, w_dim] where num_ws is None.

    `last_activation` and `lr_multiplier` are those of the paper unless given.  `w_avg_beta` None: w is not tracked.
    """

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        num_ws,
        num_layers=8,
        embed_features=None,
        layer_features=None,
        activation="lrelu",
        lr_multiplier=0.01,
        w_avg_beta=0.998,
        last_activation=None,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        layer_features = w_dim if layer_features is None else layer_features
        widths = [z_dim + embed_features] + [layer_features] * (num_layers - 1) + [w_dim]
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for index in range(num_layers):
            last = index == num_layers - 1
            act = last_activation if last and last_activation is not None else activation
            layer = FullyConnectedLayer(widths[index], widths[index + 1], activation=act, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{index}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        inputs = []
        if self.z_dim > 0:
            misc.assert_shape(z, [None, self.z_dim])
            inputs.append(normalize_second_moment(z.to(torch.float32)))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            inputs.append(normalize_second_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(inputs, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        if update_emas:
            self.track(x.detach().mean(dim=0))
        if self.num_ws is not None:
            x = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            # Toward the mean face, in the first `truncation_cutoff` rows or in all (Karras 2019, appendix B).
            cutoff = x.shape[1] if truncation_cutoff is None else truncation_cutoff
            x = torch.cat([self.w_avg.lerp(x[:, :cutoff], truncation_psi), x[:, cutoff:]], dim=1)
        return x

    @torch.no_grad()
    def track(self, w_mean):
        """Move the running mean of w toward `w_mean` [w_dim]."""
        if self.w_avg_beta is not None and self.num_ws is not None:
            self.w_avg.copy_(w_mean.lerp(self.w_avg, self.w_avg_beta))


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
        x, scale = _modulated_conv2d(
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
        memory_format = _memory_format(self.channels_last and half, ws.device)
        if fused_modconv is None:
            fused_modconv = self.fused_modconv_default
        if fused_modconv == "inference_only":
            fused_modconv = not self.training
        fused_modconv = fused_modconv and ws.device.type != "cpu"  # where weights for each sample cost more
        layer = dict(fused_modconv=fused_modconv, noise_mode=noise_mode)

        if self.in_channels == 0:
            x = self.const.to(dtype=dtype, memory_format=torch.contiguous_format).repeat(ws.shape[0], 1, 1, 1)
            x = self.conv1(x.to(memory_format=memory_format), next(w), **layer)
        else:
            x = x.to(dtype=dtype, memory_format=memory_format)
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
    """ws [N, num_ws, w_dim] -> pictures [N, img_channels, img_resolution, img_resolution], float32."""

    def __init__(
        self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=4, **block_kwargs
    ):
        super().__init__()
        check_resolution(img_resolution)
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.block_resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
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


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Mapping and synthesis together: z [N, z_dim] and label [N, c_dim] -> pictures."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, **synthesis_kwargs):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, **synthesis_kwargs)


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
        memory_format = _memory_format(self.channels_last and half, (img if x is None else x).device)
        if x is not None:
            x = x.to(dtype=dtype, memory_format=memory_format)
        if self.in_channels == 0 or self.architecture == "skip":
            y = self.fromrgb(img.to(dtype=dtype, memory_format=memory_format))
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
