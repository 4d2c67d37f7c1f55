"""conv2d_resample against its definition, one step at a time, and its gradients to second order."""

import numpy as np
import pytest
import scipy.signal
import torch

from torch_utils.ops import upfirdn2d
from torch_utils.ops.conv2d_resample import conv2d_resample

BINOMIAL = upfirdn2d.setup_filter([1, 3, 3, 1])
LOPSIDED = upfirdn2d.setup_filter([[1, 2, 3], [2, -1, 4]])


def definition(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """Zero-insert, pad, low-pass, convolve, low-pass, decimate; the low-passes only where there is resampling."""
    f = np.ones([1, 1]) if f is None else f.double().numpy()
    filter_h, filter_w = f.shape
    low_pass = scipy.signal.correlate2d if flip_filter else scipy.signal.convolve2d
    convolve = scipy.signal.correlate2d if flip_weight else scipy.signal.convolve2d
    x0, x1, y0, y1 = upfirdn2d.parse_padding(padding)
    if up > 1:  # as much as keeps `up` times the size, the extra sample in front
        x0, x1, y0, y1 = (
            x0 + (filter_w + up - 1) // 2,
            x1 + (filter_w - up) // 2,
            y0 + (filter_h + up - 1) // 2,
            y1 + (filter_h - up) // 2,
        )
    if down > 1:
        x0, x1, y0, y1 = (
            x0 + (filter_w - down + 1) // 2,
            x1 + (filter_w - down) // 2,
            y0 + (filter_h - down + 1) // 2,
            y1 + (filter_h - down) // 2,
        )

    def prepare(channel):
        spread = np.zeros([channel.shape[0] * up, channel.shape[1] * up])
        spread[::up, ::up] = channel
        spread = np.pad(spread, ((max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))))
        spread = spread[max(-y0, 0) : len(spread) - max(-y1, 0), max(-x0, 0) : spread.shape[1] - max(-x1, 0)]
        return low_pass(spread, f, mode="valid") * up**2 if up > 1 else spread

    outputs, per_group = w.shape[:2]
    result = []
    for sample in x.double().numpy():
        channels = [prepare(channel) for channel in sample]
        for o in range(outputs):
            first = o // (outputs // groups) * per_group
            y = sum(convolve(channels[first + i], w[o, i].double().numpy(), mode="valid") for i in range(per_group))
            y = low_pass(y, f, mode="valid") if down > 1 else y
            result.append(y[::down, ::down])
    return torch.from_numpy(np.stack(result).reshape(len(x), outputs, *result[0].shape))


def tensors(kernel, groups=1, height=7, width=10, batch=2, inputs=4, outputs=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn([batch, inputs, height, width], dtype=torch.float64, generator=generator)
    return x, torch.randn([outputs, inputs // groups, *kernel], dtype=torch.float64, generator=generator)


RESAMPLING = [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (2, 2), (2, 3)]


@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 2), (1, 3)])
@pytest.mark.parametrize("up, down", RESAMPLING)
def test_agrees_with_its_definition(up, down, kernel, flip_weight):
    x, w = tensors(kernel)
    for f, flip_filter in ((BINOMIAL, False), (LOPSIDED, False), (LOPSIDED, True), (None, False)):
        options = dict(f=f, up=up, down=down, padding=1, flip_weight=flip_weight, flip_filter=flip_filter)
        torch.testing.assert_close(conv2d_resample(x, w, **options), definition(x, w, **options), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("padding", [0, 2, (2, 1), (1, 0, 2, 3), (-1, 2, 0, -1), (-1, -1, -1, -1)])
@pytest.mark.parametrize("up, down", RESAMPLING)
def test_forms_of_padding(up, down, padding):
    x, w = tensors((3, 3))
    options = dict(f=BINOMIAL, up=up, down=down, padding=padding)
    torch.testing.assert_close(conv2d_resample(x, w, **options), definition(x, w, **options), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("up, down", RESAMPLING)
def test_groups(up, down, groups, kernel):
    x, w = tensors(kernel, groups=groups, inputs=4, outputs=8)
    for flip_weight in (True, False):
        options = dict(f=BINOMIAL, up=up, down=down, padding=1, groups=groups, flip_weight=flip_weight)
        torch.testing.assert_close(conv2d_resample(x, w, **options), definition(x, w, **options), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("up, down", [(2, 1), (1, 2), (2, 2), (4, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_size_is_that_of_the_picture_resampled(up, down, kernel):
    x, w = tensors((kernel, kernel), height=8, width=12)
    result = conv2d_resample(x, w, f=BINOMIAL, up=up, down=down, padding=kernel // 2)
    assert result.shape[2:] == (8 * up // down, 12 * up // down)


@pytest.mark.parametrize("up, down", RESAMPLING)
def test_separable_filter_is_its_outer_product(up, down):
    x, w = tensors((3, 3))
    taps = [1, 2, -3, 4, 5, 1, 2, 3]
    one, two = (upfirdn2d.setup_filter(taps, separable=separable) for separable in (True, False))
    torch.testing.assert_close(
        conv2d_resample(x, w, f=one, up=up, down=down, padding=3),
        conv2d_resample(x, w, f=two, up=up, down=down, padding=3),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("up, down", RESAMPLING)
def test_channels_last_input_gives_the_same(up, down):
    x, w = tensors((3, 3))
    expected = conv2d_resample(x, w, f=BINOMIAL, up=up, down=down, padding=1)
    result = conv2d_resample(x.to(memory_format=torch.channels_last), w, f=BINOMIAL, up=up, down=down, padding=1)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("up, down", RESAMPLING)
def test_keeps_the_dtype(up, down, dtype):
    x, w = tensors((3, 3))
    assert conv2d_resample(x.to(dtype), w.to(dtype), f=BINOMIAL, up=up, down=down, padding=1).dtype == dtype


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_gradients_to_second_order(up, down, kernel):
    x, w = (t.requires_grad_() for t in tensors(kernel, groups=2, height=4, width=5, batch=1, outputs=2))

    def function(x, w):
        return conv2d_resample(x, w, f=BINOMIAL, up=up, down=down, padding=kernel[0] // 2, groups=2, flip_weight=up == 1)

    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w), fast_mode=True)
