"""From seeds to pictures: latents, cameras, views, and what is refused."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from helpers import GOLDEN, small_generator

import camera_utils
from dnnlib import UserError
from dnnlib.util import construct_class_by_name
from inference import synthesis


@pytest.fixture(scope="module")
def G():
    return small_generator(8)


@pytest.fixture(scope="module")
def snapshot(G, tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "tiny.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=G, D=torch.nn.Linear(2, 2))))
    return str(path)


def test_latents_are_those_of_the_published_scripts():
    z = synthesis.latents([3, 11], 512)
    assert z.shape == (2, 512) and z.dtype == torch.float32
    np.testing.assert_array_equal(z[1], np.random.RandomState(11).randn(1, 512)[0].astype(np.float32))


@pytest.mark.parametrize(
    "path, text", [("runs/a/network-snapshot-000001.pkl", "network-snapshot-000001"), ("https://host/x/easy.pkl?dl=1", "easy")]
)
def test_network_name(path, text):
    assert synthesis.network_name(path) == text


def test_sample_views_go_from_front_to_back(G):
    labels = [synthesis.orbit(G)(view) for view in synthesis.SAMPLE_VIEWS]
    sampler = camera_utils.LookAtPoseSampler.sample
    for label, degrees in zip(labels, (0, -45, -90, -135, -180), strict=True):
        pose = sampler(math.pi / 2 + math.radians(degrees), math.pi / 2 - 0.2, (0, 0, 0), radius=2.7)
        torch.testing.assert_close(camera_utils.unpack_label(label)[0], pose)
    heights = [label[0, camera_utils.POSITION_ENTRIES][1].item() for label in labels]
    assert heights == pytest.approx([heights[0]] * 5) and heights[0] > 0  # from above


@pytest.mark.parametrize(
    "name, time, yaw, pitch, pivot",
    [
        ("Head", 0.0, 0.0, -0.05, (0, 0, 0)),
        ("Head", 0.25, math.pi / 2, 0.45, (0, 0, 0)),
        ("Head", 0.75, 3 * math.pi / 2, -0.55, (0, 0, 0)),
        ("FFHQ", 0.0, 0.0, 0.2, (0, 0, 0.2)),
        ("FFHQ", 0.25, 1.5, -0.05, (0, 0, 0.2)),
        ("FFHQ", 0.5, 0.0, -0.3, (0, 0, 0.2)),
        ("Cats", 0.75, -1.5, -0.05, (0, 0, 0)),
    ],
)
def test_camera_paths(name, time, yaw, pitch, pivot):
    view = synthesis.CAMERA_PATHS[name].view(time)
    assert (view.yaw, view.pitch) == pytest.approx((yaw, pitch), abs=1e-9) and view.pivot == pivot


def test_orbit_has_the_networks_radius_and_the_field_of_view_asked_for(G):
    label = synthesis.orbit(G, fov_degrees=30.0)(synthesis.View(0.3, 0.1, (0.0, 0.0, 0.2)))
    pose, intrinsics = camera_utils.unpack_label(label[0])
    assert pose[:3, 3].norm().item() == pytest.approx(G.rendering_kwargs.avg_camera_radius)
    assert intrinsics[0, 0].item() == pytest.approx(camera_utils.FOV_to_intrinsics(30.0)[0, 0].item())
    assert synthesis.depth_range(G) == pytest.approx((2.2, 3.2))


def test_still_views():
    assert synthesis.still_views("front, 45,back") == [
        synthesis.View(math.radians(yaw), synthesis.STILL_PITCH) for yaw in (0, 45, 180)
    ]
    for text in ("front,left", "", "nan", "45,inf", "45,,90"):
        with pytest.raises(UserError, match="give yaws in degrees, or front, side, back"):
            synthesis.still_views(text)


def test_ws_depend_on_the_conditioning_camera_and_are_truncated(G):
    camera = synthesis.orbit(G)
    front, side = camera(synthesis.View(0.0)), camera(synthesis.View(0.5))
    ws = synthesis.seeds_to_ws(G, [4, 5], front, 0.7, 4)
    expected = G.mapping(synthesis.latents([4, 5], G.z_dim), front.expand(2, -1), truncation_psi=0.7, truncation_cutoff=4)
    torch.testing.assert_close(ws, expected)
    assert not torch.allclose(ws, synthesis.seeds_to_ws(G, [4, 5], side, 0.7, 4))
    mean_face = synthesis.seeds_to_ws(G, [4], front, 0.0)
    torch.testing.assert_close(mean_face[0], G.backbone.mapping.w_avg.expand(G.backbone.num_ws, -1))


def test_views_are_those_of_synthesis_at_the_exact_cameras(G):
    camera = synthesis.orbit(G)
    labels = [camera(synthesis.View(yaw)) for yaw in (0.0, 1.0)]
    ws = synthesis.seeds_to_ws(G, [1], labels[0])
    pictures = list(synthesis.views(G, synthesis.prepare(G, ws), labels))
    for seen, label in zip(pictures, labels, strict=True):
        torch.manual_seed(0)
        expected = G.synthesis(ws, label, noise_mode="const")
        assert seen.keys() == expected.keys()
        for name, picture in expected.items():
            torch.testing.assert_close(seen[name], picture)
    assert pictures[0]["image"].shape == (1, 3, 128, 128) and pictures[0]["image_raw"].shape == (1, 3, 16, 16)


def test_a_face_is_prepared_once_and_a_view_does_not_depend_on_others(G, monkeypatch):
    calls = []
    forward = G.backbone.synthesis.forward
    monkeypatch.setattr(G.backbone.synthesis, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    label = synthesis.orbit(G)(synthesis.View(0.0))
    face = synthesis.prepare(G, synthesis.seeds_to_ws(G, [1], label))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, third = (seen["image"] for seen in synthesis.views(G, face, [label] * 3))
    assert torch.equal(first, second) and torch.equal(second, third)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone
    assert len(calls) == 1


def test_mix_styles():
    first, second = torch.zeros(1, 6, 4), torch.ones(1, 6, 4)
    for layer in (0, 2, 6):
        assert synthesis.mix_styles(first, second, layer)[0, :, 0].tolist() == [0.0] * layer + [1.0] * (6 - layer)


def test_load_generator_applies_the_settings(snapshot):
    generator = synthesis.load_generator(snapshot, "cpu", sample_mult=1.5, nrr=24)
    assert generator.rendering_kwargs.depth_resolution == 12
    assert generator.rendering_kwargs.depth_resolution_importance == 12
    assert generator.neural_rendering_resolution == 24
    assert not generator.training and not any(parameter.requires_grad for parameter in generator.parameters())
    untouched = synthesis.load_generator(snapshot, "cpu")
    assert untouched.rendering_kwargs.depth_resolution == 8 and untouched.neural_rendering_resolution == 16


def test_load_generator_refuses_other_label_lengths(tmp_path):
    kwargs = json.loads((GOLDEN / "generator_small_kwargs.json").read_text()) | {"c_dim": 12}
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(dict(G_ema=construct_class_by_name(**kwargs))))
    with pytest.raises(UserError, match="labels of 12 numbers, and cameras have 25"):
        synthesis.load_generator(str(tmp_path / "other.pkl"), "cpu")


def test_load_generator_refuses_what_is_no_generator_of_heads(tmp_path):
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(dict(G_ema=torch.nn.Linear(2, 2))))
    with pytest.raises(UserError, match="G_ema is a Linear, not a generator of heads"):
        synthesis.load_generator(str(tmp_path / "other.pkl"), "cpu", trust_pickle=True)
