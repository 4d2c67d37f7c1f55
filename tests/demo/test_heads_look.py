"""Skin, eyes, clothes, light, and the pictures of the heads."""

import dataclasses

import numpy as np
import pytest

import camera_utils
from demo.heads import eyes, light, person, shape, skin

NO_HEADS = "the extra `heads` is not installed"


def heads_packages() -> tuple:
    """The template, and the modules that render; skips the test where their packages are missing."""
    for package in ("anny", "mitsuba", "mitsuba_oidn"):
        pytest.importorskip(package, reason=NO_HEADS)
    from demo.heads import picture, scene, template

    scene.select_variant()
    return template.load_template(), scene, picture


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


def test_skin_tones_darken_step_by_step_and_people_have_all_of_them():
    tones = np.array([skin.skin_tone(melanin) for melanin in np.linspace(0, 1, 13)])
    assert np.all(np.diff(tones, axis=0) < 0)
    assert np.all(tones[:, 0] > tones[:, 1]) and np.all(tones[:, 1] > tones[:, 2])
    rng = np.random.default_rng(0)
    melanin = [skin.sample_skin(rng, shape.sample_phenotype(rng)).melanin for _ in range(600)]
    assert np.histogram(melanin, bins=5, range=(0, 1))[0].min() > 60


def test_gaze_stays_within_what_the_lids_allow():
    rng = np.random.default_rng(0)
    traits = [eyes.sample_eyes(rng, shape.sample_phenotype(rng)) for _ in range(200)]
    assert max(abs(each.pitch) for each in traits) <= 0.05
    assert {each.iris for each in traits} == set(eyes.IRIS_COLOURS)


def test_exposure_gives_dark_skin_more_light_and_still_shows_it_darker():
    pytest.importorskip("mitsuba", reason=NO_HEADS)
    from demo.heads import scene

    even = np.ones((*light.ENVIRONMENT_SHAPE, 3))
    tones = [skin.skin_tone(melanin) for melanin in (0.0, 0.5, 1.0)]
    factors = [scene.exposure(even, tone) for tone in tones]
    shown = [factor * (tone @ light.LUMINANCE) for factor, tone in zip(factors, tones)]
    assert factors[0] < factors[1] < factors[2]
    assert shown[0] > shown[1] > shown[2] > 0.05
    assert scene.exposure(2 * even, tones[1]) == pytest.approx(factors[1] / 2)


def test_tone_curve_rises_without_end_and_never_clips():
    pytest.importorskip("mitsuba", reason=NO_HEADS)
    from demo.heads import picture

    greys = picture.tone_map(np.linspace(0, 50, 2000)[:, None] * np.ones(3))[:, 0]
    assert greys[0] == 0 and np.all(np.diff(greys) > 0)
    assert greys[-1] < 250 / 255
    assert picture.tone_map(np.full(3, 0.2))[0] == pytest.approx(1.055 * 0.2 ** (1 / 2.4) - 0.055)


def test_llvm_is_found_by_its_version(tmp_path, monkeypatch):
    pytest.importorskip("mitsuba", reason=NO_HEADS)
    from demo.heads import variant

    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    folders = (str(tmp_path / "l*"), str(tmp_path / "none"))
    (tmp_path / "lib").mkdir()
    assert variant.find_llvm(folders) is None
    for name in ("libLLVM-15.so.1", "libLLVM.so.16.0", "libLLVMCore.so", "libLLVMMSP430AsmParser.a", "notes.txt"):
        (tmp_path / "lib" / name).touch()
    assert variant.find_llvm(folders) is None
    for name in ("libLLVM.so.17", "libLLVM.so.19.1", "libLLVM-18.so.1"):
        (tmp_path / "lib" / name).touch()
    assert variant.find_llvm(folders).name == "libLLVM.so.19.1"
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(tmp_path / "lib" / "libLLVM.so.17"))
    assert variant.find_llvm(folders).name == "libLLVM.so.17"


@pytest.mark.slow
def test_a_bald_head_lit_from_behind_keeps_its_skin_and_repeats_bit_by_bit():
    template, scene, picture = heads_packages()
    sitter = dataclasses.replace(
        person.sample_person(7, style="bald"), light=light.LightTraits("sky", np.pi * 0.8, 0.0, 3.6, 0.0)
    )
    stage = scene.build_scene(template, sitter)
    behind = camera_utils.orbit_label(2.6, 0.1)
    cam2world = camera_utils.unpack_label(behind)[0].reshape(4, 4).double().numpy()
    view = picture.render_view(stage, cam2world, 64, 8, seed=3)

    head = view.alpha > 0.9
    assert 0.15 < head.mean() < 0.7
    assert np.mean(view.colour[head].min(axis=-1) >= 250 / 255) == 0
    assert view.colour[head].mean() > 0.15
    assert np.mean((view.depth > 0) == (view.alpha > 0.5)) > 0.98
    assert 2 < view.depth[head & (view.depth > 0)].min() < view.depth.max() < 3.3
    shown = picture.compose(view, light.sample_background(np.random.default_rng(0), 64))
    assert shown.dtype == np.uint8 and shown.shape == (64, 64, 3)

    again = picture.render_view(scene.build_scene(template, sitter), cam2world, 64, 8, seed=3)
    assert all(np.array_equal(getattr(view, part), getattr(again, part)) for part in ("colour", "alpha", "depth"))
