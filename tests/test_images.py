"""Pictures: rounding, grids, depth colours, files."""

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from training import images


def test_to_uint8_rounds_to_the_nearest_and_clamps():
    values = torch.tensor([-1.0, 1.0, 0.0, -0.001, 2 / 255 - 0.001, -3.0, 3.0, float("inf"), float("nan")])
    out = images.to_uint8(values.reshape(1, 1, 1, -1))
    assert out.dtype == np.uint8 and out.shape == (1, 1, 9, 3)
    assert out[0, 0, :, 0].tolist() == [0, 255, 128, 127, 128, 0, 255, 255, 0]


@pytest.mark.parametrize("low, high, expected", [(-1.0, 1.0, lambda x: x / 127.5 - 1), (0.0, 1.0, lambda x: x / 255)])
def test_every_level_survives_a_round_trip(low, high, expected):
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, -1)
    values = images.from_uint8(levels, low, high)
    assert torch.equal(values, expected(levels.float()))  # to the bit: what training sees
    assert np.array_equal(images.to_uint8(values, low, high)[0, 0, :, 1], np.arange(256))


def test_to_uint8_keeps_channels_in_order():
    out = images.to_uint8(torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1))
    assert out[0, 0, 0].tolist() == [0, 128, 255]


def test_depth_is_white_near_and_black_far():
    depth = torch.tensor([2.0, 2.5, 3.0]).reshape(1, 1, 1, 3)
    assert images.colorize_depth(depth, 2.0, 3.0)[0, 0, :, 0].tolist() == [255, 128, 0]
    assert images.colorize_depth(depth)[0, 0, :, 0].tolist() == [255, 128, 0]
    assert images.colorize_depth(depth, 2.0, 5.0)[0, 0, :, 0].tolist() == [255, 213, 170]


@pytest.mark.parametrize("fill", [2.0, float("inf"), float("nan")])
def test_depth_without_a_range_does_not_fail(fill):
    assert images.colorize_depth(torch.full([1, 1, 2, 2], fill)).shape == (1, 2, 2, 3)


def test_picture_knows_the_range_of_each_mode():
    views = dict(image=torch.zeros(1, 3, 4, 4), image_mask=torch.full([1, 1, 2, 2], 0.5), image_depth=torch.ones(1, 1, 2, 2))
    assert (images.picture(views, "image") == 128).all()
    assert (images.picture(views, "image_mask") == 128).all()
    assert (images.picture(views, "image_depth", (0.0, 1.0)) == 0).all()
    with pytest.raises(UserError, match="makes no image_raw; choose from: image, image_depth, image_mask"):
        images.picture(views, "image_raw")


def test_tile_goes_row_by_row_and_pads_with_black():
    cells = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones([1, 2, 3, 3], dtype=np.uint8)
    sheet = images.tile(cells, 3)
    assert sheet.shape == (4, 9, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_tile_keeps_pictures_upright():
    cell = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
    assert np.array_equal(images.tile(cell, 1), cell[0])


@pytest.mark.parametrize("suffix, kind", [(".png", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG")])
def test_save_image_chooses_the_format_by_suffix(tmp_path, suffix, kind):
    picture = np.full([8, 6, 3], 90, dtype=np.uint8)
    images.save_image(picture, tmp_path / f"a{suffix}")
    with PIL.Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == kind and image.size == (6, 8)
        assert abs(int(np.asarray(image)[0, 0, 0]) - 90) <= 1


def test_save_image_leaves_nothing_behind_when_it_fails(tmp_path):
    with pytest.raises(ValueError):
        images.save_image(np.zeros([4, 4, 3], dtype=np.uint8), tmp_path / "a.nosuchformat")
    assert list(tmp_path.iterdir()) == []
