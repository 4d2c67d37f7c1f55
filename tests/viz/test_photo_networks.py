"""Folders that pti/run.py wrote: the face of a photo, its camera, and walks away from it."""

import pickle

import numpy as np
import pytest
import torch
from helpers import small_generator

import camera_utils
from dnnlib import UserError
from inference import synthesis
from pti import inversion
from pti.projector import Pivot
from pti.rendering import rays_start_at_head
from pti.results import Results
from pti.targets import Target
from training.images import picture as image_of
from viz import picture, states
from viz.networks import Library
from viz.states import State

YAW = 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the inversion of one photo leaves, but for its films."""
    G = small_generator(4, triplane_size=32)
    results = Results(tmp_path_factory.mktemp("inversions") / "net" / "me")
    results.folder.mkdir(parents=True)
    label = camera_utils.orbit_label(YAW, -0.1)
    ws = G.mapping(synthesis.latents([5], G.z_dim), label)
    pivot = Pivot(ws, ws.flip(1), label, torch.eye(4)[None], {})
    target = Target("me", torch.zeros(1, 3, 128, 128), None, label)
    results.save_target(target)
    results.save_pivot(pivot, target)
    results.generator.write_bytes(pickle.dumps(dict(G_ema=G)))
    return results.folder


@pytest.fixture(scope="module")
def tuned(folder):
    return picture.load(str(folder), "cpu")


def photo_state(tuned, **changes):
    return State(face=states.PHOTO, **dict(picture.photo_view(tuned), **changes))


def test_the_photos_camera_sees_what_the_inversion_drew(tuned):
    face = inversion.prepare(tuned.G, tuned.pivot)
    with rays_start_at_head(tuned.G):
        expected = image_of(synthesis.render(tuned.G, face, tuned.pivot.labels), "image")[0]
    np.testing.assert_array_equal(picture.photo_picture(tuned), expected)
    drawn = picture.picture(photo_state(tuned), tuned)
    assert np.abs(drawn.astype(float) - expected).mean() < 0.5  # the state rounds angles


def test_rays_start_at_the_head_from_any_distance(tuned):
    starts = [picture.drawing(photo_state(tuned, distance=d), tuned)[0].rendering_kwargs.ray_start for d in (2.7, 2.0)]
    assert starts == pytest.approx([2.7 - 0.35, 2.0 - 0.35], abs=1e-3)
    assert tuned.G.rendering_kwargs.ray_start == 2.25


def test_the_photo_and_its_size(tuned):
    assert tuned.photo.shape == (128, 128, 3) and tuned.photo.mean() == pytest.approx(128, abs=1)


def test_a_walk_from_the_photo_ends_at_a_seed(tuned):
    ws, _ = picture.latents(photo_state(tuned, walk=1.0, walk_seed=3, fov_deg=20.0), tuned)
    other, _ = picture.latents(State(seed=3, fov_deg=20.0), tuned)
    torch.testing.assert_close(ws, other)


def test_the_photo_keeps_its_background_unless_another_is_asked_for(tuned):
    _, own = picture.latents(photo_state(tuned), tuned)
    _, other = picture.latents(photo_state(tuned, background="other", background_seed=4), tuned)
    assert torch.equal(own, tuned.pivot.ws_bcg) and not torch.equal(own, other)


def test_a_library_finds_such_folders(folder):
    library = Library([str(folder.parents[1])], "cpu")
    assert library.names() == [str(folder)] and library.get(str(folder)).pivot is not None


def test_a_folder_that_is_not_finished(tmp_path):
    with pytest.raises(UserError, match="as pti/run.py writes them"):
        picture.load(str(tmp_path))
