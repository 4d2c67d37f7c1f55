"""Pictures of states: the same as the scripts make, and what each field of the state changes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import camera_utils
from dnnlib import UserError
from inference import synthesis
from training.images import picture as image_of
from viz import picture, states
from viz.picture import DRAFT, FULL, RAW, Network, Stale
from viz.states import State


def difference(a, b):
    return np.abs(a.astype(float) - b).mean()


def test_a_picture_is_that_of_gen_samples(network):
    G = network.G
    camera = synthesis.orbit(G)
    ws = synthesis.seeds_to_ws(G, [4], synthesis.conditioning_label(camera, 90), 0.7, 14)
    seen = synthesis.render(G, synthesis.prepare(G, ws), camera(synthesis.View(math.radians(40))))
    for mode in ("image", "image_raw", "image_depth", "image_mask"):
        drawn = picture.picture(State(seed=4, yaw=40, image_mode=mode), network)
        np.testing.assert_array_equal(drawn, image_of(seen, mode, synthesis.depth_range(G))[0])


def test_drawing_changes_nothing_in_the_network(network):
    before = picture.picture(State(), network)
    settings, size = dict(network.G.rendering_kwargs), network.G.neural_rendering_resolution
    picture.picture(State(distance=1.5, sample_mult=2), network, DRAFT)
    assert dict(network.G.rendering_kwargs) == settings and network.G.neural_rendering_resolution == size
    np.testing.assert_array_equal(picture.picture(State(), network), before)


def test_details_go_from_quick_to_best(network):
    state = State(seed=1, yaw=20)
    best = picture.picture(state, network, FULL)
    assert best.shape == (128, 128, 3)
    assert picture.picture(state, network, RAW).shape == (64, 64, 3) and picture.picture(state, network, DRAFT).shape == (
        32,
        32,
        3,
    )
    small = best.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert difference(picture.picture(state, network, DRAFT), small) < 12  # the same head, roughly
    assert network.details("image") == (DRAFT, RAW, FULL) and network.details("image_depth") == (DRAFT, RAW)


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(trunc=0.2),
        dict(trunc=0.2, trunc_cutoff=2),
        dict(walk=0.5),
        dict(mix=(2, 8)),
        dict(directions=(2.0,)),
        dict(background="other"),
        dict(background="white"),
        dict(fov_deg=30.0),
        dict(sample_mult=0.5),
        dict(yaw=30.0),
        dict(pitch=30.0),
        dict(distance=2.0),
        dict(target=(0.1, 0.0, 0.0)),
    ],
)
def test_each_setting_changes_the_picture(network, change):
    assert difference(picture.picture(State(**change), network), picture.picture(State(), network)) > 0.5


def test_a_walk_ends_at_the_other_seed(network):
    np.testing.assert_array_equal(
        picture.picture(State(walk=1.0, walk_seed=7), network), picture.picture(State(seed=7), network)
    )


def test_mixed_rows_are_those_of_the_other_seed(network):
    ws, _ = picture.latents(State(seed=0, mix=(1, 3), mix_seed=9), network)
    own, other = (picture.latents(State(seed=seed), network)[0] for seed in (0, 9))
    rows = [row for row in range(ws.shape[1]) if torch.equal(ws[:, row], other[:, row])]
    assert rows == [1, 2] and torch.equal(ws[:, 3:], own[:, 3:]) and torch.equal(ws[:, :1], own[:, :1])


def test_directions_are_perpendicular_and_as_long_as_deviations(network):
    rows = network.directions()
    lengths = rows.norm(dim=1)
    assert (lengths[:-1] >= lengths[1:]).all() and lengths[0] > 2 * lengths[-1]
    torch.testing.assert_close((rows @ rows.T) / lengths[:, None] / lengths, torch.eye(len(rows)), atol=1e-3, rtol=0)


def test_a_background_does_not_reach_the_head(network):
    mask = picture.picture(State(image_mode="image_mask"), network).astype(float)[..., :1] / 255
    own, other = (picture.picture(State(image_mode="image_raw", background=name), network) for name in ("own", "other"))
    inside, outside = (mask[..., 0] > 0.99), (mask[..., 0] < 0.01)
    assert difference(own[inside], other[inside]) < 2 < difference(own[outside], other[outside])


def test_no_background_is_transparent_and_white_is_white(network):
    cut = picture.picture(State(background="none"), network)
    white = picture.picture(State(background="white"), network)
    assert cut.shape == (128, 128, 4) and cut[0, 0, 3] < 10 and cut[64, 64, 3] > 240
    assert white[0, 0].min() > 245


def test_a_nearer_camera_sees_the_same_surface_nearer(network):
    def middle(distance):
        drawing, _ = picture.drawing(State(distance=distance), network)
        label = picture.camera(State(distance=distance), network)
        seen = synthesis.render(drawing, network.face(picture.face_of(State(), network)), label)
        size = seen["image_depth"].shape[-1]
        middle = slice(size // 2 - size // 16, size // 2 + size // 16)
        return seen["image_depth"][0, 0, middle, middle].mean().item()

    assert middle(2.7) - middle(1.7) == pytest.approx(1.0, abs=0.1)


def test_normals_of_a_plane_that_faces_the_camera_and_of_one_that_is_turned():
    label = camera_utils.orbit_label(0.0, 0.0)
    size, focal = 32, camera_utils.DEFAULT_FOCAL
    steps = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(steps / focal, steps / focal, indexing="ij")
    length = torch.sqrt(1 + x**2 + y**2)
    facing = picture.normals_picture((2.7 * length)[None, None], label)[0]
    np.testing.assert_allclose(facing, np.broadcast_to([128, 128, 255], facing.shape), atol=1)
    # The plane z' = 2.7 + x of the camera's axes recedes to the right: its normal leans to the right.
    turned = picture.normals_picture((2.7 / (1 - x) * length)[None, None], label)[0][8:24, 8:24]
    half = 255 * (1 + 0.5**0.5) / 2
    np.testing.assert_allclose(turned, np.broadcast_to([half, 127.5, half], turned.shape), atol=2)


def test_a_picture_that_nobody_waits_for_is_given_up(network):
    asked = []

    def stale():
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Stale):
        picture.picture(State(seed=77), network, FULL, stale)
    assert len(asked) == 4
    picture.picture(State(seed=77), network)  # and nothing keeps asking
    assert len(asked) == 4


def test_faces_are_prepared_once(network):
    state = State(seed=88)
    picture.picture(state, network)
    missed = network.face.cache_info().misses
    picture.picture(replace(state, yaw=50.0, pose_cond=10.0, background="white"), network)
    assert network.face.cache_info().misses == missed  # this network's faces do not depend on a camera


def test_the_face_of_a_photo_wants_a_network_that_was_tuned_to_one(network):
    with pytest.raises(UserError, match="--face seed"):
        picture.picture(State(face=states.PHOTO), network)


def test_large_faces_are_not_kept_without_end(network):
    few = Network(network.G, "few")
    assert few.face.cache_info().maxsize == picture.FACES_KEPT
