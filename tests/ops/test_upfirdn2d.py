"""upfirdn2d against its definition, written with SciPy's convolution, and its gradients to second order."""

import numpy as np
import pytest
import scipy.signal
import torch

from torch_utils.ops import upfirdn2d

FILTERS = {
    "none": None,
    "binomial": upfirdn2d.setup_filter([1, 3, 3, 1]),  # one row, made 2-D
    "lopsided": upfirdn2d.setup_filter([[1, 2, -3], [4, 5, 7]], normalize=False),
    "separable": upfirdn2d.setup_filter([1, 2, 3, -1, 5], separable=True),
}


def definition(x, f, up=(1, 1), down=(1, 1), padding=(0, 0, 0, 0), flip_filter=False, gain=1.0):
    """Zero-insert, pad or crop, convolve, decimate: one channel [H, W] at a time."""
    f = np.ones([1, 1]) if f is None else f.double().numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    x0, x1, y0, y1 = padding
    results = []
    for channel in x.double().numpy().reshape(-1, *x.shape[2:]):
        height, width = channel.shape
        spread = np.zeros([height * up[1], width * up[0]])
        spread[:: up[1], :: up[0]] = channel
        spread = np.pad(spread, ((max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))))
        spread = spread[max(-y0, 0) : len(spread) - max(-y1, 0), max(-x0, 0) : spread.shape[1] - max(-x1, 0)]
        filter2d = scipy.signal.correlate2d if flip_filter else scipy.signal.convolve2d
        results.append(gain * filter2d(spread, f, mode="valid")[:: down[1], :: down[0]])
    return torch.from_numpy(np.stack(results).reshape(*x.shape[:2], *results[0].shape))


def picture(height=7, width=10, batch=2, channels=3, dtype=torch.float64):
    return torch.randn([batch, channels, height, width], dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 0, 3), (3, -1, -2, 4)])
@pytest.mark.parametrize("up, down", [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 3), (3, 1)), ((3, 3), (2, 2))])
@pytest.mark.parametrize("name", FILTERS)
def test_agrees_with_its_definition(name, up, down, padding, flip_filter):
    x, f = picture(), FILTERS[name]
    result = upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=1.7)
    expected = definition(x, f, up, down, padding, flip_filter, gain=1.7)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)  # filters are float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", FILTERS)
def test_keeps_the_dtype(name, dtype):
    assert upfirdn2d.upfirdn2d(picture(dtype=dtype), FILTERS[name], up=2, padding=4, gain=2.0).dtype == dtype


def test_forms_of_padding():
    x, f = picture(), FILTERS["binomial"]
    one, two = (upfirdn2d.upfirdn2d(x, f, padding=padding) for padding in (2, (2, 2, 2, 2)))
    assert torch.equal(one, two)
    one, two = (upfirdn2d.upfirdn2d(x, f, padding=padding) for padding in ((3, 1), (3, 3, 1, 1)))
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", FILTERS)
def test_channels_last_input_gives_the_same(name):
    x = picture()
    expected = upfirdn2d.upfirdn2d(x, FILTERS[name], up=2, down=3, padding=3)
    result = upfirdn2d.upfirdn2d(x.to(memory_format=torch.channels_last), FILTERS[name], up=2, down=3, padding=3)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    "name, up, down, padding",
    [("binomial", 2, 1, (2, 1, 2, 1)), ("lopsided", 1, 2, 2), ("separable", (2, 1), 2, (4, 3, 2, -1)), ("none", 2, 3, -1)],
)
def test_gradients_to_second_order(name, up, down, padding):
    def function(x):
        return upfirdn2d.upfirdn2d(x, FILTERS[name], up=up, down=down, padding=padding).square()

    x = picture(5, 6, batch=1, channels=2).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


# The functions made of it


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("taps", [[1], [1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1]])
def test_sizes_of_resampled_pictures(taps, factor):
    x, f = picture(12, 6), upfirdn2d.setup_filter(taps)
    assert upfirdn2d.upsample2d(x, f, up=factor).shape[2:] == (12 * factor, 6 * factor)
    assert upfirdn2d.downsample2d(x, f, down=factor).shape[2:] == (12 // factor, 6 // factor)
    assert upfirdn2d.filter2d(x, f).shape[2:] == (12, 6)
    assert upfirdn2d.filter2d(x, f, padding=(1, 2, 3, -1)).shape[2:] == (12 + 2, 6 + 3)
    assert upfirdn2d.upsample2d(x, f, up=factor, padding=-1).shape[2:] == (12 * factor - 2, 6 * factor - 2)


def test_brightness_is_kept_away_from_the_frame():
    x, f = torch.ones([1, 1, 12, 12]), FILTERS["binomial"]
    for result in (upfirdn2d.upsample2d(x, f), upfirdn2d.downsample2d(x, f), upfirdn2d.filter2d(x, f)):
        inside = result[:, :, 2:-2, 2:-2]
        torch.testing.assert_close(inside, torch.ones_like(inside))


def centre_of_mass(x):
    """Where a picture's light is, (row, column), with the frame's corners at 0 and 1."""
    at = [(torch.arange(size, dtype=x.dtype) + 0.5) / size for size in x.shape[2:]]
    return [(x.sum(dim=[0, 1, 3 - axis]) * at[axis]).sum().item() / x.sum().item() for axis in (0, 1)]


def test_resampling_does_not_move_the_picture():
    x = torch.zeros([1, 1, 12, 16], dtype=torch.float64)
    x[..., 5:7, 8:10] = 1  # whole blocks, so that decimation takes them evenly
    expected = centre_of_mass(x)
    f = FILTERS["binomial"]
    assert centre_of_mass(upfirdn2d.upsample2d(x, f)) == pytest.approx(expected, abs=1e-6)
    assert centre_of_mass(upfirdn2d.filter2d(x, upfirdn2d.setup_filter([1, 2, 1]))) == pytest.approx(expected, abs=1e-6)
    down = upfirdn2d.downsample2d(upfirdn2d.upsample2d(x, f), f)
    assert centre_of_mass(down) == pytest.approx(expected, abs=1e-6)


def test_padding_of_resampling_is_added_to_its_own():
    x, f = picture(), FILTERS["binomial"]
    wide = upfirdn2d.upsample2d(x, f, padding=(1, 2, 3, 4))
    torch.testing.assert_close(wide[:, :, 3:-4, 1:-2], upfirdn2d.upsample2d(x, f))


# Filters


def test_setup_filter_makes_one_row_two_dimensional_when_it_is_short():
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    torch.testing.assert_close(f, torch.tensor([1.0, 3, 3, 1]).outer(torch.tensor([1.0, 3, 3, 1])) / 64)
    assert upfirdn2d.setup_filter([1, 3, 3, 1], separable=True).ndim == 1
    assert upfirdn2d.setup_filter([1.0] * 8).ndim == 1
    assert upfirdn2d.setup_filter([1.0] * 8, separable=False).shape == (8, 8)


def test_setup_filter_scales_and_flips():
    torch.testing.assert_close(
        upfirdn2d.setup_filter([[1, 2], [3, 4]], normalize=False, gain=2), torch.tensor([[2.0, 4], [6, 8]])
    )
    torch.testing.assert_close(
        upfirdn2d.setup_filter([[1, 2], [3, 4]], flip_filter=True), torch.tensor([[0.4, 0.3], [0.2, 0.1]])
    )
    # A separable filter is used twice, so each pass has the root of the gain.
    assert upfirdn2d.setup_filter([1, 1], separable=True, gain=4).tolist() == [1.0, 1.0]
    assert upfirdn2d.setup_filter(5).tolist() == [[1.0]]


def test_setup_filter_refuses_three_axes():
    with pytest.raises(ValueError, match="one or two axes"):
        upfirdn2d.setup_filter(torch.ones([2, 2, 2]))
