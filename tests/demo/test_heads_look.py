"""Skin, eyes, clothes, light, and the pictures of the heads."""

import numpy as np
import pytest

from demo.heads import light


def sampled_lights(n: int = 60) -> list[light.LightTraits]:
    return [light.sample_light(np.random.default_rng([seed, 8])) for seed in range(n)]


def test_directions_of_the_environment_are_units_and_cover_the_sphere():
    directions, solid_angles = light.environment_directions()
    assert np.allclose(np.linalg.norm(directions, axis=2), 1)
    assert solid_angles.sum() == pytest.approx(4 * np.pi, rel=1e-3)
    assert np.allclose((directions * solid_angles[..., None]).sum((0, 1)), 0, atol=1e-9)


def test_an_even_environment_shows_white_surfaces_as_bright_as_itself():
    even = np.full((*light.ENVIRONMENT_SHAPE, 3), 0.7)
    assert np.allclose(light.irradiance(even, light.upright_normals()), 0.7, rtol=0.01)


def test_no_side_of_a_head_is_left_in_the_dark_or_burnt():
    for traits in sampled_lights():
        upright = light.irradiance(light.environment_map(traits), light.upright_normals()) @ light.LUMINANCE
        assert upright.mean() == pytest.approx(1, abs=1e-4)
        assert upright.min() > 0.4
        assert upright.max() < 2


def test_light_comes_from_where_its_azimuth_says_and_azimuths_from_all_around():
    for azimuth in (0, np.pi / 2, np.pi, -np.pi / 2):
        environment = light.environment_map(light.LightTraits("sky", azimuth, 0.0, 3.0, 0.0))
        brightest = light.upright_normals()[np.argmax(light.irradiance(environment, light.upright_normals()) @ light.LUMINANCE)]
        assert brightest @ [np.sin(azimuth), 0, np.cos(azimuth)] > 0.9
    azimuths = [traits.azimuth for traits in sampled_lights()]
    assert np.histogram(azimuths, bins=4, range=(-np.pi, np.pi))[0].min() >= 6


def test_warm_light_is_yellower():
    reddish = [
        light.environment_map(light.LightTraits("overcast", 0.0, 0.0, 2.0, warmth))[..., 0].sum() for warmth in (-0.1, 0.1)
    ]
    assert reddish[1] > 1.1 * reddish[0]


@pytest.mark.parametrize("resolution", [64, 512])
def test_backgrounds_are_muted_pictures_and_repeat_with_the_seed(resolution):
    pictures = [light.sample_background(np.random.default_rng(seed), resolution) for seed in range(20)]
    for picture in pictures:
        assert picture.shape == (resolution, resolution, 3)
        assert 0 <= picture.min() and picture.max() <= 1
    saturation = np.mean([np.ptp(picture, axis=2).mean() for picture in pictures])
    assert 0.01 < saturation < 0.25
    assert np.array_equal(pictures[3], light.sample_background(np.random.default_rng(3), resolution))
