"""What StyleGAN2's networks are built of (Karras 2020): layers, modulated convolution, and the widths of layers.

Names of modules and tensors are those of published checkpoints.  Shapes: N batch, C channels, pictures [N, C, H, W].
Every weight is stored with unit variance and scaled when it is used: equalised learning rate (Karras 2018, section 4.1).
"""

import math

import torch
import torch.nn.functional as F

from torch_utils import persistence
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


def memory_format(channels_last: bool, device: torch.device) -> torch.memory_format:
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
    x, scale = unscaled_modulated_conv2d(
        x, weight, styles, up, padding, resample_filter, demodulate, flip_weight, fused_modconv=fused_modconv
    )
    if scale is not None:
        x = x * scale[:, :, None, None]
    return x if noise is None else x + noise.to(x.dtype)


def unscaled_modulated_conv2d(
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
