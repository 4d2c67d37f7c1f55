"""StyleGAN2's networks, as an old project in the family's format might have written them.  See write_snapshots.py."""

import numpy as np
import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, fma, upfirdn2d


@misc.profiled_function
def unit_rms(x):
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


@misc.profiled_function
def modulate(x, weight, styles, noise=None, up=1, f=None, demodulate=True):
    outputs, inputs, size, _ = weight.shape
    misc.assert_shape(x, [len(styles), inputs, None, None])
    x = x * styles[:, :, None, None]
    x = conv2d_resample.conv2d_resample(x=x, w=weight, f=f, up=up, padding=size // 2, flip_weight=(up == 1))
    if not demodulate:
        return x
    energy = torch.einsum("ni,oikl->no", styles.square(), weight.square())
    scale = (energy + 1e-8).rsqrt()[:, :, None, None]
    noise = misc.constant(0, shape=[1, 1, 1, 1], device=x.device) if noise is None else noise
    return fma.fma(x, scale, noise)


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.in_features = in_features
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], np.float32(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / np.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x):
        b = None if self.bias is None else self.bias * self.bias_gain
        return bias_act.bias_act(x.matmul((self.weight * self.weight_gain).t()), b, act=self.activation)


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, bias=True, activation="linear", up=1, down=1, conv_clamp=None):
        super().__init__()
        self.activation = activation
        self.up, self.down, self.conv_clamp = up, down, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / np.sqrt(in_channels * kernel_size**2)
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels])) if bias else None

    def forward(self, x, gain=1):
        w = self.weight * self.weight_gain
        with conv2d_gradfix.no_weight_gradients():
            if self.up == self.down == 1:
                x = conv2d_gradfix.conv2d(input=x, weight=w, padding=self.padding, groups=1)
            else:
                sampling = dict(up=self.up, down=self.down, padding=self.padding, flip_weight=(self.up == 1))
                x = conv2d_resample.conv2d_resample(x=x, w=w, f=self.resample_filter, **sampling)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp, impl="cuda")


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    def __init__(
        self, z_dim, c_dim, w_dim, num_ws, num_layers=8, lr_multiplier=0.01, w_avg_beta=0.998, last_activation="lrelu",
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        self.embed = FullyConnectedLayer(c_dim, w_dim)
        for i in range(num_layers):
            inputs = z_dim + w_dim if i == 0 else w_dim
            activation = last_activation if i == num_layers - 1 else "lrelu"
            setattr(self, f"fc{i}", FullyConnectedLayer(inputs, w_dim, activation=activation, lr_multiplier=lr_multiplier))
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        with torch.autograd.profiler.record_function("input"):
            x = unit_rms(self.embed(c.to(torch.float32)))
            if self.z_dim > 0:
                misc.assert_shape(z, [None, self.z_dim])
                x = torch.cat([unit_rms(z.to(torch.float32)), x], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.num_ws is None:
            return x
        x = x.unsqueeze(1).repeat([1, self.num_ws, 1])
        if truncation_psi != 1:
            x[:, :truncation_cutoff] = self.w_avg.lerp(x[:, :truncation_cutoff], truncation_psi)
        return x


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, resolution, up=1, conv_clamp=None):
        super().__init__()
        self.in_channels, self.out_channels, self.w_dim = in_channels, out_channels, w_dim
        self.resolution, self.up, self.conv_clamp = resolution, up, conv_clamp
        self.act_gain = bias_act.activation_funcs["lrelu"].def_gain
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, 3, 3]))
        self.register_buffer("noise_const", torch.randn([resolution, resolution]))
        self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        noise = None
        if noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        elif noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, self.resolution, self.resolution], device=x.device) * self.noise_strength
        x = modulate(x, self.weight, self.affine(w), noise, up=self.up, f=self.resample_filter)
        return bias_act.bias_act(x, self.bias, act="lrelu", gain=self.act_gain * gain, clamp=self.conv_clamp)


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / np.sqrt(in_channels * kernel_size**2)

    def forward(self, x, w, fused_modconv=True):
        x = modulate(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act.bias_act(x, self.bias, clamp=self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    def __init__(
        self, in_channels, out_channels, w_dim, resolution, img_channels, is_last, architecture="skip", up=2,
        conv_clamp=256, use_fp16=False, fused_modconv_default=True,
    ):  # fmt: skip
        super().__init__()
        self.in_channels, self.w_dim, self.resolution, self.img_channels = in_channels, w_dim, resolution, img_channels
        self.is_last, self.architecture, self.use_fp16 = is_last, architecture, use_fp16
        self.fused_modconv_default = fused_modconv_default
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        self.num_conv = self.num_torgb = 0
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=up, conv_clamp=conv_clamp)
            self.num_conv += 1
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        self.num_conv += 1
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp=conv_clamp)
        self.num_torgb += 1

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, update_emas=False, **layer_kwargs):
        _ = update_emas  # nothing is averaged here
        misc.assert_shape(ws, [None, self.num_conv + self.num_torgb, self.w_dim])
        w_iter = iter(ws.unbind(dim=1))
        if self.in_channels == 0:
            x = self.const[None].expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, next(w_iter), **layer_kwargs)
        x = self.conv1(x, next(w_iter), **layer_kwargs)
        if img is not None and img.shape[-1] < self.resolution:
            img = upfirdn2d.upsample2d(img, self.resample_filter, impl="cuda")
        y = self.torgb(x, next(w_iter)).to(torch.float32)
        return x, y if img is None else img + y


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    def __init__(
        self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=4, **block_kwargs
    ):
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.img_resolution_log2 = int(np.log2(img_resolution))
        self.num_fp16_res = num_fp16_res
        self.block_resolutions = [2**i for i in range(2, self.img_resolution_log2 + 1)]
        self.num_ws = 0
        inputs = 0
        for res in self.block_resolutions:
            outputs, is_last = min(channel_base // res, channel_max), res == img_resolution
            block = SynthesisBlock(inputs, outputs, w_dim, res, img_channels, is_last=is_last, **block_kwargs)
            self.num_ws += block.num_conv + (block.num_torgb if is_last else 0)
            setattr(self, f"b{res}", block)
            inputs = outputs

    def forward(self, ws, **block_kwargs):
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        x = img = None
        start = 0
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            x, img = block(x, img, ws.narrow(1, start, block.num_conv + block.num_torgb), **block_kwargs)
            start += block.num_conv
        return img


@persistence.persistent_class
class Generator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={}, **synthesis_kwargs):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **mapping_kwargs)


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    def __init__(self, in_channels, channels, out_channels, img_channels, activation="lrelu", conv_clamp=None):
        super().__init__()
        self.in_channels = in_channels
        self.register_buffer("resample_filter", upfirdn2d.setup_filter([1, 3, 3, 1]))
        layer = dict(activation=activation, conv_clamp=conv_clamp)
        if in_channels == 0:
            self.fromrgb = Conv2dLayer(img_channels, channels, kernel_size=1, **layer)
        self.conv0 = Conv2dLayer(channels, channels, kernel_size=3, **layer)
        self.conv1 = Conv2dLayer(channels, out_channels, kernel_size=3, down=2, **layer)
        self.skip = Conv2dLayer(channels, out_channels, kernel_size=1, bias=False, down=2)

    def forward(self, x, img):
        x = self.fromrgb(img) if self.in_channels == 0 else x
        return self.skip(x, gain=np.sqrt(0.5)) + self.conv1(self.conv0(x), gain=np.sqrt(0.5))


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    def __init__(self, group_size):
        super().__init__()
        self.group_size = group_size

    def forward(self, x):
        with misc.suppress_tracer_warnings():
            group = torch.min(torch.as_tensor(self.group_size), torch.as_tensor(len(x)))
        y = x.reshape(group, -1, *x.shape[1:]).var(dim=0, unbiased=False).add(1e-8).sqrt().mean(dim=[1, 2, 3])
        return torch.cat([x, y.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    def __init__(self, in_channels, cmap_dim, mbstd_group_size=4, activation="lrelu"):
        super().__init__()
        self.cmap_dim = cmap_dim
        self.mbstd = MinibatchStdLayer(mbstd_group_size)
        self.conv = Conv2dLayer(in_channels + 1, in_channels, kernel_size=3, activation=activation)
        self.fc = FullyConnectedLayer(in_channels * 16, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, cmap_dim)

    def forward(self, x, cmap):
        x = self.out(self.fc(self.conv(self.mbstd(x)).flatten(1)))
        misc.assert_shape(cmap, [None, self.cmap_dim])
        return (x * cmap).sum(dim=1, keepdim=True) * (1 / np.sqrt(self.cmap_dim))
