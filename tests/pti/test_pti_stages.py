"""Projection and tuning on a tiny network: they get closer to the photo, and do not modify the caller's objects."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import fill
from scipy.spatial.transform import Rotation

import camera_utils
from dnnlib import UserError
from dnnlib.util import construct_class_by_name
from inference import synthesis
from pti import inversion, pivotal_tuning, projector, rendering
from pti.perceptual import StructuralLoss
from pti.pivotal_tuning import Tuning
from pti.pose import BOUNDS, PoseCorrection
from pti.projector import Pivot, Projection
from pti.rendering import Drawing
from pti.settings import ProjectionSettings, TuningSettings
from pti.targets import TargetSource
from training.checkpoint import frozen_copy

FEW = dict(steps=4, w_samples=50)


def project(G, target, **settings):
    search = Projection(G, target, StructuralLoss(), ProjectionSettings(**{**FEW, **settings}))
    return [step.terms for step in search.steps()], search.result()


@pytest.fixture(scope="module")
def pivot(generator, target):
    ws = torch.full([1, generator.backbone.num_ws, generator.w_dim], 0.1)
    return Pivot(ws, None, target.labels, torch.eye(4)[None], {})


def test_statistics_of_w(generator):
    found = projector.w_statistics(generator, 30)
    z = torch.from_numpy(np.random.RandomState(123).randn(30, generator.z_dim)).float()
    w = generator.mapping(z, camera_utils.orbit_label(0, 0).expand(30, -1))[:, 0].numpy()
    np.testing.assert_allclose(found.mean, w.mean(0), atol=1e-5)
    assert found.deviation == pytest.approx(math.sqrt(w.var(axis=0).sum()), rel=1e-4)
    np.testing.assert_allclose(found.mean_z[0], z.mean(0), atol=1e-6)


@pytest.mark.parametrize("space, alike", [("w", True), ("w+", False)])
def test_projection_starts_at_the_mean_face_and_moves(generator, target, unchanged, space, alike):
    before = target.labels.clone(), target.images.clone()
    terms, pivot = project(generator, target, space=space)
    assert torch.equal(target.labels, before[0]) and torch.equal(target.images, before[1])
    assert pivot.ws.shape == (1, generator.backbone.num_ws, generator.w_dim)
    assert torch.equal(pivot.ws[:, 0], pivot.ws[:, -1]) == alike
    assert terms[0]["w_distance"] == 0 and terms[-1]["w_distance"] > 0
    assert pivot.ws_bcg is None and not pivot.noise


def test_projection_is_reproducible_and_draws_nothing_from_the_caller(generator, target):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    _, first = project(generator, target, seed=5)
    assert torch.equal(torch.rand(1), expected)
    _, again = project(generator, target, seed=5)
    _, other = project(generator, target, seed=6)
    assert torch.equal(first.ws, again.ws) and not torch.equal(first.ws, other.ws)


def test_camera_is_the_label_shifted_as_for_the_mean_z(generator, target):
    _, pivot = project(generator, target, steps=1, refine_pose=False)
    mean_z = projector.w_statistics(generator, FEW["w_samples"]).mean_z
    expected, shift = generator.apply_delta_c(mean_z, target.labels)
    assert shift.abs().max() > 1e-3
    torch.testing.assert_close(pivot.labels, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(pivot.motion[0, :3, 3], shift[0], atol=1e-6, rtol=0)


def test_refined_pose_is_bounded_and_follows_its_motion(generator, target):
    _, pivot = project(generator, target, steps=6, refine_pose=True)
    _, plain = project(generator, target, steps=6, refine_pose=False)
    assert not torch.allclose(pivot.labels, plain.labels, atol=1e-5)
    cam2world, _ = camera_utils.unpack_label(pivot.labels[0])
    before, _ = camera_utils.unpack_label(target.labels[0])
    torch.testing.assert_close(cam2world, pivot.motion[0] @ before, atol=1e-5, rtol=0)
    off = camera_utils.yaw_pitch_roll_degrees(pivot.labels) - camera_utils.yaw_pitch_roll_degrees(target.labels)
    assert off.abs().max() < 12


@pytest.mark.parametrize("yaw", [0.0, 1.2])
def test_a_camera_is_moved_across_its_line_of_sight_and_turned_about_axes_in_its_picture(yaw):
    """So the head neither leans nor comes nearer; each of the four numbers is bounded."""
    label = camera_utils.orbit_label(yaw, 0.3)
    pose = PoseCorrection(label)
    camera = camera_utils.unpack_label(label)[0][0, :3, :3]
    with torch.no_grad():
        pose.raw.copy_(torch.tensor([0.0, 0.0, 20.0, -0.5]))
    shift = camera.T @ pose.motion()[0, :3, 3]
    torch.testing.assert_close(shift, torch.tensor([BOUNDS[2], BOUNDS[3] * math.tanh(-0.5), 0.0]), atol=1e-6, rtol=0)
    with torch.no_grad():
        pose.raw.copy_(torch.tensor([20.0, -20.0, 0.0, 0.0]))
    turn = Rotation.from_matrix((camera.T @ pose.motion()[0, :3, :3] @ camera).detach().double()).as_rotvec()
    np.testing.assert_allclose(turn, [BOUNDS[0], -BOUNDS[1], 0], atol=1e-6)
    assert pose(label).requires_grad


def test_cameras_without_steps_to_find_them_are_refused():
    with pytest.raises(UserError, match="w_until must be over 0"):
        ProjectionSettings(refine_pose=True, w_until=0)


def test_cameras_are_found_first_with_one_w_for_all_layers(generator, target):
    search = Projection(generator, target, StructuralLoss(), ProjectionSettings(**{**FEW, "steps": 10}, refine_pose=True))
    steps = search.steps()
    for _ in range(4):
        next(steps)
    early = search.result()
    list(steps)
    late = search.result()
    assert torch.equal(early.ws[:, 0], early.ws[:, -1]) and not torch.equal(late.ws[:, 0], late.ws[:, -1])
    assert torch.equal(early.motion, late.motion) and not torch.equal(early.motion[0, :3, :3], torch.eye(3))


def test_masks_give_the_background_a_latent_of_its_own(generator, target, unchanged):
    terms, pivot = project(generator, target, mask=True)
    assert "silhouette" in terms[0] and pivot.ws_bcg.shape[1] == generator.bcg_synthesis.num_ws
    with pytest.raises(UserError, match="has no mask: give --target_seg DIR, or --mask false"):
        project(generator, dataclasses.replace(target, masks=None), mask=True)


def test_optimised_noise_stays_normal_and_comes_back_as_the_networks(generator, target, unchanged, tmp_path):
    terms, pivot = project(generator, target, optimize_noise=True)
    assert terms[0]["noise"] > 0 and set(pivot.noise) <= set(generator.state_dict())
    for noise in pivot.noise.values():
        assert noise.mean().abs() < 1e-5 and noise.square().mean() == pytest.approx(1, rel=1e-4)
    tuning = Tuning(generator, target, pivot, StructuralLoss(), TuningSettings(steps=0))
    tuning.save(tmp_path / "tuned.pkl")
    stored = synthesis.load_generator(str(tmp_path / "tuned.pkl"), "cpu").state_dict()
    assert all(torch.equal(stored[name], noise) for name, noise in pivot.noise.items())


def test_a_projection_without_progress_goes_on_to_the_falling_rate(generator, target, monkeypatch):
    monkeypatch.setattr(projector.schedules.Plateau, "reached", lambda self, loss: True)
    terms, _ = project(generator, target, steps=8)
    assert len(terms) == 4 + 3  # while layers share one w; then one, and the last quarter
    terms, _ = project(generator, target, steps=8, w_until=0, refine_pose=False)
    assert len(terms) == 3


def test_several_photos_make_one_latent(generator, photos):
    both = TargetSource(str(photos)).load([0, 1], 128)
    terms, pivot = project(generator, both)
    assert pivot.labels.shape == (2, 25) and pivot.ws.shape[0] == 1
    alone = [project(generator, TargetSource(str(photos)).load([index], 128), steps=1)[0][0] for index in (0, 1)]
    # Of the first step, before anything has moved; the two views draw one after the other from one seed.
    assert terms[0]["mse"] == pytest.approx((alone[0]["mse"] + alone[1]["mse"]) / 2, rel=0.1)


# Tuning


def tune(G, target, pivot, **settings):
    tuning = Tuning(G, target, pivot, StructuralLoss(), TuningSettings(**settings))
    with tuning.borrowed():
        terms = [step.terms for step in tuning.steps()]
        return terms, frozen_copy(G)


def test_tuning_comes_closer_and_gives_the_generator_back(generator, target, pivot, unchanged):
    terms, tuned = tune(generator, target, pivot, steps=8, back_prior=0, learning_rate=2e-3)
    assert sum(terms[-1].values()) < 0.95 * sum(terms[0].values())
    assert not torch.equal(tuned.decoder.net[0].weight, generator.decoder.net[0].weight)
    assert torch.equal(tuned.backbone.mapping.fc0.weight, generator.backbone.mapping.fc0.weight)
    assert not any(parameter.requires_grad for parameter in tuned.parameters())


def test_a_tuning_without_progress_goes_on_to_the_falling_rate(generator, target, pivot, monkeypatch):
    monkeypatch.setattr(projector.schedules.Plateau, "reached", lambda self, loss: True)
    terms, _ = tune(generator, target, pivot, steps=8, back_prior=0)
    assert len(terms) == 3  # one, then the last quarter


def test_the_generator_comes_back_after_a_failure_too(generator, target, pivot, unchanged):
    tuning = Tuning(generator, target, pivot, StructuralLoss(), TuningSettings(steps=2, back_prior=0))
    with pytest.raises(KeyError), tuning.borrowed():
        list(tuning.steps())
        raise KeyError


@pytest.mark.parametrize("name", ["locality", "back_prior"])
def test_what_shall_stay_stays_closer(generator, target, pivot, name):
    """A large weight on the anchors keeps their pictures closer to the original ones."""
    off = {}
    for weight in (0.0, 100.0):
        held, probed = ({"locality": 0.0, "back_prior": 0.0, name: value} for value in (weight, 1.0))
        settings = TuningSettings(steps=4, learning_rate=3e-4, anchors=2, **held)
        tuning = Tuning(generator, target, pivot, StructuralLoss(), settings)
        probe = Tuning(generator, target, pivot, StructuralLoss(), TuningSettings(anchors=2, **probed))
        anchors = probe._record()[name]
        with tuning.borrowed():
            list(tuning.steps())
            with torch.no_grad():
                again = [tuning._seen(anchor.ws, anchor.ws_bcg, anchor.label) for anchor in anchors]
        pairs = zip(anchors, again)
        off[weight] = sum((a.seen["image"] - b.seen["image"]).square().mean().item() for a, b in pairs)
    assert off[100.0] < 0.7 * off[0.0]


def test_unseen_cameras_are_on_the_other_sides():
    front = camera_utils.orbit_label(0.0, 0.0)
    yaws = camera_utils.yaw_pitch_roll_degrees(torch.cat(pivotal_tuning.unseen_cameras(front, 9, 2.7)))[:, 0]
    assert yaws.abs().min() >= 59 and yaws.abs().max() > 170 and (yaws > 0).any() and (yaws < 0).any()
    all_round = torch.cat([camera_utils.orbit_label(math.radians(yaw), 0.0) for yaw in range(0, 360, 45)])
    assert len(pivotal_tuning.unseen_cameras(all_round, 4, 2.7)) == 4


def test_a_network_without_masks_and_background_is_inverted_too(target):
    """EG3D's generator: masks weight the photo, and there is no silhouette term."""
    kwargs = json.loads((Path(__file__).parent.parent / "golden" / "eg3d_small_kwargs.json").read_text())
    kwargs["rendering_kwargs"].update(depth_resolution=4, depth_resolution_importance=4)
    G = fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)
    G.neural_rendering_resolution = 16
    terms, pivot = project(G, target, steps=1, mask=True, refine_pose=True)
    assert "silhouette" not in terms[0] and pivot.ws_bcg is None
    terms, _ = tune(G, target, pivot, steps=1, mask=True, anchors=1, back_prior=0.1)
    assert math.isfinite(sum(terms[0].values()))


# Rendering


def test_strips_change_neither_picture_nor_gradient_but_need_less(generator, monkeypatch):
    """Without random draws along the rays, a view in strips is the view at once."""
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.full(*args, 0.5, **kwargs))
    label = camera_utils.orbit_label(0.3, 0.1)
    found = []
    for strips in (1, 4):
        ws = torch.full([1, generator.backbone.num_ws, generator.w_dim], 0.2, requires_grad=True)
        (seen,) = Drawing(strips=strips).views(generator, ws, label)
        (seen["image"].mean() + seen["image_mask"].mean()).backward()
        found.append((seen["image"], seen["image_mask"], ws.grad))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_memory_decides_how_many_strips(generator, monkeypatch):
    monkeypatch.setattr(generator, "neural_rendering_resolution", 64)  # rays need most of the memory
    monkeypatch.setitem(generator.rendering_kwargs, "depth_resolution", 24)
    monkeypatch.setitem(generator.rendering_kwargs, "depth_resolution_importance", 24)
    plan = functools.partial(rendering.plan_drawing, generator, StructuralLoss(), False)
    apart, rays = rendering._bytes_of_a_view(generator, StructuralLoss(), mixed=False)
    ws = torch.zeros([1, generator.backbone.num_ws, generator.w_dim], requires_grad=True)
    label = camera_utils.orbit_label(0, 0).requires_grad_()

    def loss():
        return [
            StructuralLoss()(seen["image"], torch.zeros_like(seen["image"])) for seen in Drawing().views(generator, ws, label)
        ]

    generator.requires_grad_()
    at_once = rendering.bytes_kept(loss, generator.parameters())
    generator.requires_grad_(False)
    assert rays > 0.2 * at_once and apart + rays == pytest.approx(at_once, rel=0.1)
    weights = 4 * sum(parameter.nbytes for parameter in generator.parameters())
    assert plan(None).strips == 1
    for share, strips in ((1.01, 1), (0.51, 2), (0.49, 4)):
        assert plan((weights + apart + share * rays) / 2**30).strips == strips
    with pytest.raises(UserError, match=r"--max-memory .*: this network needs about .* GiB; give more, or lower --nrr"):
        plan(0.001)
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_rays_start_at_the_head_as_published(generator, unchanged):
    with rendering.rays_start_at_head(generator):
        assert generator.rendering_kwargs.ray_start == pytest.approx(2.35)


def test_precision_that_the_cpu_has_not_is_refused():
    with pytest.raises(UserError, match="--precision tf32 needs a GPU"):
        rendering.use_precision("tf32", torch.device("cpu"))
    rendering.use_precision("fp32", torch.device("cpu"))


# Mesh


def test_without_masks_the_mesh_takes_the_generators(target, pivot):
    seen = [dict(image_mask=torch.full([1, 1, 4, 4], 0.5))]
    (shot,) = inversion.photo_shots(dataclasses.replace(target, masks=None), pivot, seen)
    assert shot.is_photo and shot.mask is seen[0]["image_mask"] and torch.equal(shot.label, pivot.labels)
    (shot,) = inversion.photo_shots(target, pivot, seen)
    assert torch.equal(shot.mask, target.masks) and torch.equal(shot.image, target.images)
    (shot,) = inversion.photo_shots(dataclasses.replace(target, masks=None), pivot, [dict(image_raw=torch.zeros(1, 3, 4, 4))])
    assert torch.equal(shot.mask, torch.ones(1, 1, 4, 4))
