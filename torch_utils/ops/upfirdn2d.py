"""Up-sampling, FIR filtering and down-sampling of pictures (Karras 2020, StyleGAN2; Karras 2021, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch_utils import custom_ops

_MANY = 8  # with at least this many channels, channels last is faster


def setup_filter(
    f: Sequence[float] | torch.Tensor,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> torch.Tensor:
    """Create a float32 filter for the functions below: [fw] if `separable`, else [fh, fw].

    A single row of taps is kept if `separable` (the default from 8 taps on), and expanded to its outer product otherwise.
    `normalize` makes the taps sum to 1; `gain` multiplies the values of the picture.
    """
    f = torch.as_tensor(f, dtype=torch.float32)
    f = f[None] if f.ndim == 0 else f
    if f.ndim not in (1, 2):
        raise ValueError(f"a filter has one or two axes, not {f.ndim}")
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def parse_padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Expand padding given as one number, (x, y) or (x0, x1, y0, y1) to the last form."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    return tuple(padding)


def filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """Width and height of a filter."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Insert zeros between the pixels (`up`) of [N, C, H, W], pad, convolve with `f` and keep every `down`-th pixel.

    `f` comes from `setup_filter`; None means no filter.  `padding` is in up-sampled pixels, as one number, (x, y) or
    (x0, x1, y0, y1); negative padding crops.  `flip_filter` turns the convolution into a correlation.  Differentiable any
    number of times.  Here and below, `impl` is ignored: published code passes it to choose an implementation, but here
    `custom_ops` does.
    """
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    x0, x1, y0, y1 = parse_padding(padding)
    flat = torch.ones([1, 1], device=x.device) if f is None else f
    taps = (flat * gain ** (flat.ndim / 2)).to(x.dtype)
    if not flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    resampling = (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1)
    if x.numel() > 0 and custom_ops.compiled(x, taps, half=True) is not None:
        if taps.ndim == 2:
            return _Resample.apply(x, taps, *resampling)
        x = _Resample.apply(x, taps[None, :].contiguous(), (up_x, 1), (down_x, 1), (x0, x1, 0, 0))
        return _Resample.apply(x, taps[:, None].contiguous(), (1, up_y), (1, down_y), (0, 0, y0, y1))
    return _reference(x, taps, *resampling)


def _reference(
    x: torch.Tensor, taps: torch.Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, int, int, int]
) -> torch.Tensor:
    """The reference.  `taps` [fw] or [fh, fw] are in the order of a correlation."""
    batch, channels, height, width = x.shape
    (up_x, up_y), (down_x, down_y) = up, down
    if up_x > 1 or up_y > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, (0, up_x - 1, 0, 0, 0, up_y - 1))
        x = x.reshape(batch, channels, height * up_y, width * up_x)
    if any(padding):
        x = F.pad(x, padding)
    if taps.shape == (1, 1):
        return x[:, :, ::down_y, ::down_x] * taps.reshape([])
    if taps.ndim == 2:
        return F.conv2d(x, taps.expand(channels, 1, -1, -1), stride=(down_y, down_x), groups=channels)
    x = F.conv2d(x, taps[None, :].expand(channels, 1, -1, -1), stride=(1, down_x), groups=channels)
    return F.conv2d(x, taps[:, None].expand(channels, 1, -1, -1), stride=(down_y, 1), groups=channels)


class _Resample(torch.autograd.Function):
    """The compiled path.  Its gradient is also a resampling, with `up` and `down` exchanged."""

    @staticmethod
    def forward(ctx, x, taps, up, down, padding):
        ctx.save_for_backward(taps)
        ctx.size = x.shape[2:]
        ctx.resampling = up, down, padding
        few = x.shape[1] < _MANY or x.is_contiguous()
        x = x.contiguous(memory_format=torch.contiguous_format if few else torch.channels_last)
        return custom_ops.compiled(x, half=True).upfirdn2d(x, taps, *up, *down, *padding)

    @staticmethod
    def backward(ctx, grad):
        (taps,) = ctx.saved_tensors
        up, down, (x0, _, y0, _) = ctx.resampling
        (height, width), (taps_y, taps_x) = ctx.size, taps.shape
        left, top = taps_x - 1 - x0, taps_y - 1 - y0
        right = (width - 1) * up[0] + 1 + x0 - grad.shape[3] * down[0]  # gives the gradient the size of x
        bottom = (height - 1) * up[1] + 1 + y0 - grad.shape[2] * down[1]
        return _Resample.apply(grad, taps.flip([0, 1]), down, up, (left, right, top, bottom)), *[None] * 4


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Filter pictures [N, C, H, W] with `f`.  They keep their size; `padding` is added to that."""
    width, height = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    padding = (x0 + width // 2, x1 + (width - 1) // 2, y0 + height // 2, y1 + (height - 1) // 2)
    return upfirdn2d(x, f, padding=padding, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Enlarge pictures by `up` and keep their brightness.  Extra `padding` is in pixels of the result."""
    (up_x, up_y), (width, height) = _pair(up), filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    padding = (
        x0 + (width + up_x - 1) // 2,
        x1 + (width - up_x) // 2,
        y0 + (height + up_y - 1) // 2,
        y1 + (height - up_y) // 2,
    )
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain * up_x * up_y)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Shrink pictures by `down`.  Extra `padding` is in pixels of the input."""
    (down_x, down_y), (width, height) = _pair(down), filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    padding = (
        x0 + (width - down_x + 1) // 2,
        x1 + (width - down_x) // 2,
        y0 + (height - down_y + 1) // 2,
        y1 + (height - down_y) // 2,
    )
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain)
