"""Properties of the generator beyond its golden records: options, one face rendered in parts, refusals."""

import json
import math
from pathlib import Path

import pytest
import torch

import camera_utils
from dnnlib.util import construct_class_by_name
from training.triplane import OSGDecoder

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def tiny_generator(**changes):
    """The golden small generator with narrower layers; `changes` go into its rendering_kwargs."""
    kwargs = json.loads((GOLDEN / "generator_small_kwargs.json").read_text())
    kwargs.update(channel_base=256, channel_max=8, z_dim=16, w_dim=16)
    kwargs["rendering_kwargs"].update(depth_resolution=6, depth_resolution_importance=6, **changes)
    return construct_class_by_name(**kwargs).eval().requires_grad_(False)


def latents(batch=2):
    labels = torch.cat([camera_utils.orbit_label(0.3 * i, 0.1) for i in range(batch)])
    return torch.randn([batch, 16]), labels


@pytest.mark.parametrize("activation", ["sigmoid", "lrelu", "none"])
def test_decoder_activations(activation):
    decoder = OSGDecoder(4, dict(decoder_lr_mul=1, decoder_output_dim=3, decoder_activation=activation))
    plain = OSGDecoder(4, dict(decoder_lr_mul=1, decoder_output_dim=3, decoder_activation="none"))
    plain.load_state_dict(decoder.state_dict())
    features = 20 * torch.randn([2, 50, 4])
    (sigma, rgb), (plain_sigma, plain_rgb) = decoder.decode(features), plain.decode(features)
    assert torch.equal(sigma, plain_sigma)
    expected = dict(
        sigmoid=torch.sigmoid(plain_rgb) * 1.002 - 0.001,
        lrelu=torch.where(plain_rgb < 0, 0.2 * plain_rgb, plain_rgb) * math.sqrt(2),
        none=plain_rgb,
    )
    torch.testing.assert_close(rgb, expected[activation])


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("torgb", [True, False])
def test_prepare_and_render_equal_synthesis(activation, background, torgb):
    generator = tiny_generator(use_background=background, decoder_activation=activation, use_torgb_raw=torgb)
    z, c = latents()
    ws, other = generator.mapping(z, c), generator.mapping(-z, c)
    for ws_bcg in (None, other):
        torch.manual_seed(3)
        expected = generator.synthesis(ws, c, neural_rendering_resolution=8, ws_bcg=ws_bcg, noise_mode="const")
        face = generator.prepare(ws, ws_bcg, noise_mode="const")
        torch.manual_seed(3)
        result = generator.render(face, c, neural_rendering_resolution=8, noise_mode="const")
        assert set(result) == set(expected) == {"image", "image_raw", "image_depth", "image_mask"}
        for name in expected:
            torch.testing.assert_close(result[name], expected[name])


def test_background_comes_from_its_own_ws_and_only_behind_the_head():
    generator = tiny_generator()
    z, c = latents()
    ws = generator.mapping(z, c)
    results = []
    for ws_bcg in (ws, generator.mapping(-z, c)):
        torch.manual_seed(3)
        results.append(generator.synthesis(ws, c, neural_rendering_resolution=8, ws_bcg=ws_bcg, noise_mode="const"))
    one, other = results
    assert torch.equal(one["image_mask"], other["image_mask"]) and torch.equal(one["image_depth"], other["image_depth"])
    assert not torch.allclose(one["image_raw"], other["image_raw"])


def test_generator_without_camera_shift_returns_the_label():
    generator = tiny_generator(trans_reg=0)
    z, c = latents()
    shifted, shift = generator.apply_delta_c(z, c)
    assert torch.equal(shifted, c) and not shift.any()
    assert not hasattr(generator, "t_mapping")


def test_new_generator_does_not_move_the_camera():
    _, shift = tiny_generator().apply_delta_c(*latents())
    assert shift.shape == (2, 3) and not shift.any()


def test_camera_shift_leaves_the_callers_label_alone():
    generator = tiny_generator()
    generator.t_mapping.fc1.weight.normal_()
    z, c = latents()
    before = c.clone()
    shifted, shift = generator.apply_delta_c(z, c)
    assert torch.equal(c, before)
    torch.testing.assert_close(shifted, camera_utils.shift_label(c, shift))
    assert shift.any()


def test_no_conditioning_hides_the_label_from_mapping_but_not_from_the_camera():
    generator = tiny_generator(c_gen_conditioning_zero=True)
    generator.t_mapping.fc1.weight.normal_()
    z, c = latents()
    assert torch.equal(generator.mapping(z, c), generator.mapping(z, c.flip(0)))
    shifted, shift = generator.apply_delta_c(z, c)
    assert shift.any() and torch.equal(shift, generator.apply_delta_c(z, c.flip(0))[1])
    torch.testing.assert_close(shifted, camera_utils.shift_label(c, shift))  # the camera itself is not zeroed


def test_c_scale_multiplies_the_conditioning_label():
    generator, double = tiny_generator(c_scale=1), tiny_generator(c_scale=2)
    double.load_state_dict(generator.state_dict())
    z, c = latents()
    torch.testing.assert_close(double.mapping(z, c), generator.mapping(z, 2 * c))


def test_rendering_size_and_settings_can_be_changed_on_the_instance():
    generator = tiny_generator()
    z, c = latents(1)
    generator.neural_rendering_resolution = 8
    assert generator(z, c, noise_mode="const")["image_raw"].shape == (1, 3, 8, 8)
    assert generator(z, c, neural_rendering_resolution=12, noise_mode="const")["image_raw"].shape == (1, 3, 12, 12)
    generator.rendering_kwargs["ray_start"] = 3.0
    assert generator(z, c, noise_mode="const")["image_depth"].min() >= 3.0


def test_sampled_densities_are_not_cut_off():
    generator = tiny_generator()
    z, c = latents(1)
    points = torch.tensor([[[0.45, 0, 0], [0.2, 0.1, 0]]])  # the first is where the renderer sees nothing
    sampled = generator.sample(points, torch.zeros_like(points), z, c, noise_mode="const")
    assert sampled["sigma"].abs().max() < 100
    mixed = generator.sample_mixed(points, torch.zeros_like(points), generator.mapping(z, c), noise_mode="const")
    assert torch.equal(sampled["sigma"], mixed["sigma"]) and torch.equal(sampled["rgb"], mixed["rgb"])


@pytest.mark.parametrize(
    "changes, match",
    [
        (dict(decoder_activation="relu"), "sigmoid, lrelu, none"),
        (dict(superresolution_module="training.superresolution.SuperresolutionHybrid4X"), "256 pixels, not 128"),
        (dict(triplane_size=48), "power of two"),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        tiny_generator(**changes)


def test_mixed_ray_limits_are_refused():
    generator = tiny_generator(ray_start="auto")
    with pytest.raises(ValueError, match="both"):
        generator(*latents(1))


def test_density_alone_is_that_of_a_query():
    generator = tiny_generator()
    grids, points = generator.make_grids(generator.mapping(*latents()), noise_mode="const"), torch.rand(2, 50, 3) - 0.5
    torch.testing.assert_close(generator.density(grids, points), generator.query(grids, points)[0])
