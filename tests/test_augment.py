"""Augmentations compared with direct formulas, and the guarantees that all of them share."""

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from camera_utils import LABEL_DIM
from training.augment import Affine, AugmentPipe, adjusted_p, move_pixels, recolour, warp

SIZE, RAW = 32, 16
BLITS = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")


def pictures(batch=4, size=SIZE, raw=RAW, dtype=torch.float32):
    """Random pictures of all three kinds; each pixel is different."""
    generator = torch.Generator().manual_seed(1)
    shapes = dict(image=(batch, 3, size, size), image_raw=(batch, 3, raw, raw), image_mask=(batch, 1, raw, raw))
    return {name: torch.rand(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def smooth_pictures(batch=4, size=64, raw=16):
    """Low-frequency pictures, and the small ones made of the large; the mask is the first channel."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand([batch, 3, 4, 4], generator=generator)
    image = F.interpolate(coarse, size=(size, size), mode="bicubic")
    small = shrink(image, raw)
    return dict(image=image, image_raw=small, image_mask=small[:, :1])


def shrink(x, size):
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


def only(*names, multiplier=1):
    """A pipe with these transforms and no others, at p = 1."""
    return AugmentPipe(**{name: multiplier * (name in names) for name in (*BLITS, *GEOMETRY, *COLOUR)})


def labels(batch=4):
    """Random labels without zeros, so that every sign shows."""
    return torch.rand([batch, LABEL_DIM], generator=torch.Generator().manual_seed(3)) + 0.1


def augment_with_labels(pipe, inputs, given_labels, p=1.0, seed=0):
    pipe.p.fill_(p)
    torch.manual_seed(seed)
    return pipe(inputs, given_labels)


def augment(pipe, inputs, p=1.0, seed=0):
    """The pictures alone."""
    return augment_with_labels(pipe, inputs, labels(len(next(iter(inputs.values())))), p, seed)[0]


def shifted(x, dx, dy):
    """Shift a picture right by dx and down by dy pixels, and mirror it at the edges."""
    reach = max(abs(dx), abs(dy))
    size = x.shape[-1]
    padded = np.pad(x.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    return torch.from_numpy(padded[:, reach - dy : reach - dy + size, reach - dx : reach - dx + size])


# The whole pipe


@pytest.mark.parametrize("pipe", [AugmentPipe(), only("xflip"), only()])
def test_nothing_changes_at_p_zero(pipe):
    given, given_labels = pictures(), labels()
    result, result_labels = augment_with_labels(pipe, given, given_labels, p=0)
    assert result.keys() == given.keys()
    assert all(torch.equal(result[name], given[name]) for name in given)
    assert torch.equal(result_labels, given_labels)


def test_everything_changes_at_p_one():
    given = pictures()
    result = augment(AugmentPipe(), given)
    assert all((result[name] != given[name]).flatten(1).any(dim=1).all() for name in given)


def test_input_is_not_written_to_and_other_entries_are_left_out():
    given = dict(pictures(), image_depth=torch.ones([4, 1, RAW, RAW]))
    copies = {name: x.clone() for name, x in given.items()}
    given_labels = labels()
    result, _ = augment_with_labels(AugmentPipe(), given, given_labels)
    assert all(torch.equal(given[name], copies[name]) for name in given)
    assert torch.equal(given_labels, labels())
    assert "image_depth" not in result and "image_depth" in given


def test_pictures_without_a_mask():
    given = pictures()
    del given["image_mask"]
    assert set(augment(AugmentPipe(), given)) == {"image", "image_raw"}


@pytest.mark.parametrize(
    "transform, p, multiplier", [("brightness", 0.3, 1), ("xfrac", 0.7, 1), ("hue", 0.8, 0.5), ("rotate", 0.5, 1)]
)
def test_share_of_changed_samples_is_p_times_the_multiplier(transform, p, multiplier):
    count = 4000
    given = pictures(batch=count, size=4, raw=4)
    changed = (augment(only(transform, multiplier=multiplier), given, p)["image"] != given["image"]).flatten(1).any(dim=1)
    expected = p * multiplier
    assert abs(changed.float().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_samples_are_drawn_apart():
    same = {name: x[:1].expand(8, -1, -1, -1) for name, x in pictures().items()}
    result = augment(AugmentPipe(), same)
    assert len({x.numpy().tobytes() for x in result["image"]}) == 8


def test_pipe_survives_a_pickle():
    pipe = AugmentPipe()
    pipe.p.fill_(0.25)
    copy = pickle.loads(pickle.dumps(pipe))
    assert float(copy.p) == 0.25
    torch.manual_seed(5)
    expected, _ = pipe(pictures(), labels())
    torch.manual_seed(5)
    result, _ = copy(pictures(), labels())
    assert all(torch.equal(result[name], expected[name]) for name in expected)


# Blits


def test_xflip_mirrors_or_leaves():
    given = pictures(batch=16)
    result = augment(only("xflip"), given)
    flipped = (result["image"] != given["image"]).flatten(1).any(dim=1)
    assert 0 < flipped.sum() < 16  # at p = 1 half of them are mirrored
    for name, x in given.items():
        expected = torch.where(flipped[:, None, None, None], x.flip(3), x)
        assert torch.equal(result[name], expected)


def test_rotate90_is_rot90_by_the_same_turns():
    given = pictures(batch=16)
    result = augment(only("rotate90"), given)
    seen = set()
    for i in range(16):
        turns = [k for k in range(4) if torch.equal(result["image"][i], torch.rot90(given["image"][i], k, dims=[1, 2]))]
        assert len(turns) == 1
        seen.add(turns[0])
        for name in ("image_raw", "image_mask"):
            assert torch.equal(result[name][i], torch.rot90(given[name][i], turns[0], dims=[1, 2]))
    assert seen == {0, 1, 2, 3}


def test_xint_moves_by_whole_raw_pixels_and_mirrors_at_the_edge():
    given = pictures(batch=16)
    result = augment(only("xint"), given)
    reach = RAW // 8
    steps = [(dx, dy) for dx in range(-reach, reach + 1) for dy in range(-reach, reach + 1)]
    seen = set()
    for i in range(16):
        (step,) = [s for s in steps if torch.equal(result["image_raw"][i], shifted(given["image_raw"][i], *s))]
        seen.add(step)
        assert torch.equal(result["image_mask"][i], shifted(given["image_mask"][i], *step))
        factor = SIZE // RAW
        assert torch.equal(result["image"][i], shifted(given["image"][i], factor * step[0], factor * step[1]))
    assert len(seen) > 5


def test_blits_follow_one_another_as_flip_turn_shift():
    x = pictures(batch=1)["image"]
    source = Affine.identity(1, 2)
    source = source.after(torch.tensor([[[-1.0, 0], [0, 1]]]))
    source = source.after(torch.tensor([[[0.0, 1], [-1, 0]]]))  # the inverse of a quarter turn from x to y: clockwise
    source = source.after(offset=torch.tensor([[-2.0 * 3 / SIZE, 2.0 / SIZE]]))  # the inverse of a shift by (3, -1)
    expected = shifted(torch.rot90(x[0].flip(2), -1, dims=[1, 2]), 3, -1)
    assert torch.equal(move_pixels(x, source)[0], expected)


def test_shift_across_several_mirrors():
    x = torch.arange(4.0).reshape(1, 1, 1, 4).expand(-1, -1, 4, -1)
    source = Affine.identity(1, 2).after(offset=torch.tensor([[2.0 * 9 / 4, 0]]))  # nine pixels to the left
    assert move_pixels(x, source)[0, 0, 0].tolist() == [1.0, 2.0, 3.0, 3.0]  # 0 1 2 3 3 2 1 0 0 [1 2 3 3] 2 1 0


# Geometry


def lowpass():
    return AugmentPipe().lowpass


def test_warp_by_nothing_gives_the_picture_back():
    x = pictures()["image"] * 2 - 1
    result = warp(x, Affine.identity(4, 2), lowpass())
    # The filter's pass band is flat to 0.3% in each direction.
    assert (result - x).norm() / x.norm() < 0.01


@pytest.mark.parametrize("step", [(0, 0), (5, -3)])
def test_warp_agrees_with_blits(step):
    x = smooth_pictures()["image"]
    source = Affine.identity(4, 2).after(_turn(math.pi / 2)).after(offset=2 / 64 * torch.tensor([step]).expand(4, -1))
    torch.testing.assert_close(warp(x, source, lowpass()), move_pixels(x, source), atol=0.01, rtol=0)


def _turn(angle):
    return torch.tensor([[[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]]).expand(4, -1, -1)


def test_warp_of_a_ramp_is_the_ramp_at_the_source():
    size = 64
    centres = (2 * torch.arange(size) + 1) / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    ramp = (0.3 * x + 0.7 * y).expand(4, 1, -1, -1)
    matrix, offset = 0.5 * _turn(0.4), torch.tensor([[0.1, -0.05]]).expand(4, -1)
    at = torch.stack([x, y], dim=-1) @ matrix[0].T + offset[0]  # stays inside the frame
    result = warp(ramp, Affine(matrix, offset), lowpass())
    torch.testing.assert_close(result, (at @ torch.tensor([0.3, 0.7])).expand(4, 1, -1, -1), atol=2e-3, rtol=0)


def test_constant_pictures_stay_constant():
    given = {name: torch.full_like(x, 0.7) for name, x in pictures().items()}
    for x in augment(only("xint", *GEOMETRY), given).values():
        torch.testing.assert_close(x, torch.full_like(x, 0.7), atol=5e-3, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_geometry_is_shared_by_all_resolutions(seed):
    given = smooth_pictures()
    pipe = only(*BLITS, *GEOMETRY)
    result = augment(pipe, given, seed=seed)
    torch.testing.assert_close(result["image_mask"], result["image_raw"][:, :1])
    expected = shrink(result["image"], 16)
    error = (result["image_raw"] - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() < 0.03
    other = shrink(augment(pipe, given, seed=seed + 100)["image"], 16)
    assert (result["image_raw"] - other).norm() / other.norm() > 0.15  # the measure can tell geometries apart


def test_raw_size_that_does_not_divide_the_picture():
    given = smooth_pictures(raw=24)
    result = augment(only("rotate90", "xint"), given, seed=3)
    expected = shrink(result["image"], 24)
    assert (result["image_raw"] - expected).norm() / expected.norm() < 0.03


def test_geometry_draws_have_the_strengths_of_the_paper():
    torch.manual_seed(0)
    count = 20000
    scale = only("scale").draw_geometry(count).matrix
    assert torch.equal(scale[:, 0, 0], scale[:, 1, 1])
    assert scale[:, 0, 0].log2().std().item() == pytest.approx(0.2, rel=0.03)
    aniso = only("aniso").draw_geometry(count).matrix
    torch.testing.assert_close(torch.linalg.det(aniso), torch.ones(count))
    assert aniso[:, 0, 0].log2().std().item() == pytest.approx(0.2, rel=0.03)
    shift = only("xfrac").draw_geometry(count).offset
    assert shift.std().item() == pytest.approx(2 * 0.125, rel=0.03)  # the frame is 2 wide
    pixels = only("xint").draw_blit(count, 64).offset * 64 / 2
    assert torch.equal(pixels, pixels.round()) and pixels.abs().max() == 8
    turn = only("rotate").draw_geometry(count).matrix
    angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
    assert angle.std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.03)


# Colours


def test_colours_are_shared_and_leave_the_mask():
    given = pictures()
    result = augment(only(*COLOUR), given)
    assert torch.equal(result["image_mask"], given["image_mask"])
    for i in range(4):
        # One affine map explains all pixels of both pictures.
        before, after = (torch.cat([x["image"][i].flatten(1), x["image_raw"][i].flatten(1)], dim=1).T for x in (given, result))
        before = torch.cat([before, torch.ones(len(before), 1)], dim=1)
        found = torch.linalg.lstsq(before, after).solution
        torch.testing.assert_close(before @ found, after, atol=1e-4, rtol=0)


def test_brightness_adds_one_number():
    given = pictures()
    difference = augment(only("brightness"), given)["image"] - given["image"]
    shift = difference.mean(dim=[1, 2, 3], keepdim=True)
    torch.testing.assert_close(difference, shift.expand_as(difference))
    assert len(shift.unique()) == 4


def test_contrast_multiplies_by_one_number():
    given = pictures()
    ratio = augment(only("contrast"), given)["image"] / given["image"]
    factor = ratio.mean(dim=[1, 2, 3], keepdim=True)
    torch.testing.assert_close(ratio, factor.expand_as(ratio))
    assert (factor > 0).all() and len(factor.unique()) == 4


def test_lumaflip_negates_the_mean_of_a_pixel_and_keeps_its_colour():
    given = pictures(batch=16)
    before, after = given["image"], augment(only("lumaflip"), given)["image"]
    flipped = (before != after).flatten(1).any(dim=1)
    assert 0 < flipped.sum() < 16
    expected = before - 2 * before.mean(dim=1, keepdim=True)
    torch.testing.assert_close(after[flipped], expected[flipped])


def test_hue_turns_the_colour_and_keeps_mean_and_length():
    given = pictures()
    before, after = given["image"], augment(only("hue"), given)["image"]
    torch.testing.assert_close(after.mean(dim=1), before.mean(dim=1))
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
    torch.manual_seed(0)
    maps = only("hue").draw_colour(1000).matrix
    torch.testing.assert_close(torch.linalg.det(maps), torch.ones(1000))  # turns, not reflections
    assert maps.diagonal(dim1=1, dim2=2).sum(dim=1).min() < -0.99  # trace 1 + 2 cos: half turns occur


def test_saturation_scales_the_distance_to_grey():
    given = pictures()
    before, after = given["image"], augment(only("saturation"), given)["image"]
    torch.testing.assert_close(after.mean(dim=1), before.mean(dim=1))
    ratio = (after - after.mean(dim=1, keepdim=True)).norm(dim=1) / (before - before.mean(dim=1, keepdim=True)).norm(dim=1)
    torch.testing.assert_close(ratio, ratio.mean(dim=[1, 2], keepdim=True).expand_as(ratio), atol=1e-3, rtol=1e-3)


def test_colour_draws_have_the_strengths_of_the_paper():
    torch.manual_seed(0)
    count = 20000
    assert only("brightness").draw_colour(count).offset[:, 0].std().item() == pytest.approx(0.2, rel=0.03)
    contrast = only("contrast").draw_colour(count).matrix[:, 0, 0]
    assert contrast.log2().std().item() == pytest.approx(0.5, rel=0.03)
    saturation = only("saturation").draw_colour(count).matrix
    factor = saturation[:, 0, 0] - saturation[:, 0, 1]
    assert factor.log2().std().item() == pytest.approx(1, rel=0.03)


def test_recolour_applies_matrix_and_offset():
    x = pictures()["image"]
    colour = Affine(torch.randn([4, 3, 3]), torch.randn([4, 3]))
    expected = torch.einsum("nij,njhw->nihw", colour.matrix, x) + colour.offset[:, :, None, None]
    torch.testing.assert_close(recolour(x, colour), expected)


# Gradients


@pytest.mark.parametrize("pipe", [only(*BLITS), only(*GEOMETRY), AugmentPipe()])
def test_pictures_can_be_differentiated_twice(pipe):
    inputs = [x.requires_grad_() for x in pictures(batch=2, size=8, raw=4, dtype=torch.float64).values()]

    def function(image, image_raw, image_mask):
        torch.manual_seed(4)
        result, _ = pipe(dict(image=image, image_raw=image_raw, image_mask=image_mask), labels(2))
        return tuple(x**3 for x in result.values())  # makes the second derivative non-zero

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_r1_through_the_pipe_reaches_the_discriminator():
    weight = torch.randn([1, 3, SIZE, SIZE], requires_grad=True)
    given = {name: x.requires_grad_() for name, x in pictures().items()}
    logits = (augment(AugmentPipe(), given, p=0.5)["image"] * weight).sum(dim=[1, 2, 3]).square()
    (gradient,) = torch.autograd.grad(logits.sum(), given["image"], create_graph=True)
    gradient.square().sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu():
    pipe = AugmentPipe().cuda()
    given, given_labels = {name: x.cuda() for name, x in pictures().items()}, labels().cuda()
    pipe(given, given_labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pipe(given, given_labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# The rule of adaptation


def test_adjusted_p_moves_toward_the_target():
    p, step = torch.tensor(0.2), 64 / 500_000
    assert adjusted_p(p, 0.7, 0.6, num_images=64, kimg=500).item() == pytest.approx(0.2 + step)
    assert adjusted_p(p, 0.5, 0.6, num_images=64, kimg=500).item() == pytest.approx(0.2 - step)
    assert adjusted_p(p, 0.6, 0.6, num_images=64, kimg=500) == p


def test_adjusted_p_stays_a_probability():
    assert adjusted_p(torch.tensor(0.0), -1, 0.6, num_images=64, kimg=500) == 0
    assert adjusted_p(torch.tensor(1.0), 1, 0.6, num_images=64, kimg=500) == 1
    p = torch.tensor(0.3)
    assert adjusted_p(p, math.nan, 0.6, num_images=64, kimg=500) == p


def test_p_takes_kimg_thousand_images_from_zero_to_one():
    p = torch.tensor(0.0)
    for _ in range(100):
        p = adjusted_p(p, 1, 0.6, num_images=1000, kimg=100)
    assert p.item() == pytest.approx(1, abs=1e-5)
