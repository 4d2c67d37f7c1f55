"""Up-sample, filter with an FIR low-pass and down-sample pictures (Karras 2020, StyleGAN2; Karras 2021, section 3)."""

from typing import Sequence

import torch
import torch.nn.functional as F


def setup_filter(
    f: Sequence[float] | torch.Tensor,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> torch.Tensor:
    """A float32 filter for the functions below: [fw] if `separable`, else [fh, fw].

    One row of taps is kept as it is when `separable` (the default from 8 taps on), and turned into its outer product
    otherwise.  `normalize` makes the taps sum to 1; `gain` is the factor on the picture's values.
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
    """Padding given as one number, (x, y) or (x0, x1, y0, y1), in the last form."""
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
    """Pictures [N, C, H, W] -> zeros between pixels (`up`), `padding`, convolution with `f`, every `down`-th pixel.

    `f` comes from `setup_filter`; None stands for no filter.  Padding is in up-sampled pixels, one number, (x, y) or
    (x0, x1, y0, y1), and crops where negative.  `flip_filter` makes the convolution a correlation.  Differentiable
    any number of times.  Here and below, `impl` is what published code passes to choose an implementation; there is one.
    """
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    x0, x1, y0, y1 = parse_padding(padding)
    batch, channels, height, width = x.shape
    if up_x > 1 or up_y > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, (0, up_x - 1, 0, 0, 0, up_y - 1))
        x = x.reshape(batch, channels, height * up_y, width * up_x)
    if any((x0, x1, y0, y1)):
        x = F.pad(x, (x0, x1, y0, y1))
    if f is None:
        return x[:, :, ::down_y, ::down_x] * gain
    taps = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if not flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    if taps.ndim == 2:
        return F.conv2d(x, taps.expand(channels, 1, -1, -1), stride=(down_y, down_x), groups=channels)
    x = F.conv2d(x, taps[None, :].expand(channels, 1, -1, -1), stride=(1, down_x), groups=channels)
    return F.conv2d(x, taps[:, None].expand(channels, 1, -1, -1), stride=(down_y, 1), groups=channels)


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Filter pictures [N, C, H, W] with `f`; they keep their size, `padding` adds to that."""
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
    """Pictures `up` times as large, brightness kept; `padding` (in pixels of the result) adds to that."""
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
    """Pictures smaller by the factor `down`; `padding` (in pixels of the input) adds to that."""
    (down_x, down_y), (width, height) = _pair(down), filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    padding = (
        x0 + (width - down_x + 1) // 2,
        x1 + (width - down_x) // 2,
        y0 + (height - down_y + 1) // 2,
        y1 + (height - down_y) // 2,
    )
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain)
